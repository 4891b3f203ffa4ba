// SPDX-License-Identifier: GPL-2.0-or-later
// Bundles page.jsx with what it imports into one page.js: node bundle.mjs PAGE NODE_MODULES DIRECTORY
import { createRequire } from 'node:module';
import { join } from 'node:path';

const [page, modules, directory] = process.argv.slice(2);
const { build } = createRequire(join(modules, 'x.js'))('esbuild');

// What @grafana/ui imports and no panel of ours shows: an editor of 70 MB and the like.
const LEFT_OUT = /^(monaco-editor|@monaco-editor\/react|ol|jquery)($|\/)/;
const leaveOut = {
  name: 'leave-out',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: LEFT_OUT }, ({ path }) => ({ path, namespace: 'left-out' }));
    onLoad({ filter: /.*/, namespace: 'left-out' }, () => ({ contents: 'module.exports = {};' }));
  },
};

// CommonJS whose default export @grafana/ui means: its files are called .mjs, and for those esbuild does as Node.js would,
// which takes all of such a module for its default export. So they get it by way of a file that has another name.
const BY_DEFAULT = /^(react-custom-scrollbars-2|react-highlight-words|calculate-size)$/;
const haveDefault = {
  name: 'have-default',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: BY_DEFAULT }, ({ path, namespace }) =>
      namespace === 'has-default' ? undefined : { path, namespace: 'has-default' }
    );
    onLoad({ filter: /.*/, namespace: 'has-default' }, ({ path }) => ({
      contents: `export * from '${path}'; export { default } from '${path}';`,
      resolveDir: modules,
    }));
  },
};

await build({
  entryPoints: { page },
  outdir: directory,
  bundle: true,
  minify: true,
  format: 'iife',
  nodePaths: [modules],
  jsx: 'automatic',
  loader: { '.svg': 'text', '.woff': 'empty', '.woff2': 'empty', '.png': 'empty' },
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  logLevel: 'error',
  plugins: [leaveOut, haveDefault],
});
