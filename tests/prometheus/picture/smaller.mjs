// SPDX-License-Identifier: GPL-2.0-or-later
// Writes a PNG anew with the 256 colours that are nearest to its own: node smaller.mjs NODE_MODULES FILE
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [modules, file] = process.argv.slice(2);
const UPNG = createRequire(join(modules, 'x.js'))('upng-js');
const image = UPNG.decode(readFileSync(file));
writeFileSync(file, Buffer.from(UPNG.encode(UPNG.toRGBA8(image), image.width, image.height, 256)));
