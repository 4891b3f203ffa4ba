// SPDX-License-Identifier: GPL-2.0-or-later
// Draws window.BOARD (answers.py) with Grafana's components, each panel in its place on the dashboard.
//
// What of Grafana isn't in its packages is made up for here, as little of it as there has to be: frames of what the data
// source answered, the panels' default settings, the state timeline, the lines of annotations, and the head.

import React from 'react';
import { createRoot } from 'react-dom/client';
import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  createTheme,
  dateTime,
  FieldConfigOptionsRegistry,
  FieldType,
  getFieldDisplayValues,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  transformDataFrame,
} from '@grafana/data';
import {
  BigValue,
  GlobalStyles,
  PanelChrome,
  TimeSeries,
  UPlotChart,
  UPlotConfigBuilder,
  VizLayout,
  VizLegend,
  VizRepeater,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable'; // what Grafana's own table panel takes
import versions from '@grafana/ui/package.json';

const { dashboard, answers, marks, from, to, step } = window.BOARD;
const theme = createTheme({ colors: { mode: 'light' } });
const timeRange = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
const TIME_ZONE = 'utc';
const COLUMNS = 24;
const ROW = 30;
const GAP = 8;
const EDGE = 16;

window.FAULTS = [];
window.addEventListener('error', (event) => window.FAULTS.push(event.message));
window.addEventListener('unhandledrejection', (event) => window.FAULTS.push(String(event.reason)));

// What a panel has where its JSON says nothing: Grafana's plugins bring it.
const BY_THRESHOLDS = {
  color: { mode: 'thresholds' },
  thresholds: { mode: 'absolute', steps: [{ color: 'green', value: -Infinity }, { color: 'red', value: 80 }] },
};
const DEFAULTS = {
  timeseries: {
    color: { mode: 'palette-classic' },
    custom: {
      drawStyle: 'line',
      lineInterpolation: 'linear',
      lineWidth: 1,
      fillOpacity: 0,
      gradientMode: 'none',
      spanNulls: false,
      showPoints: 'auto',
      pointSize: 5,
      stacking: { mode: 'none', group: 'A' },
      axisPlacement: 'auto',
      scaleDistribution: { type: 'linear' },
      thresholdsStyle: { mode: 'off' },
      hideFrom: { legend: false, tooltip: false, viz: false },
    },
  },
  stat: BY_THRESHOLDS,
  table: BY_THRESHOLDS,
  'state-timeline': BY_THRESHOLDS,
};

const fieldConfigOf = (panel) => {
  const usual = DEFAULTS[panel.type];
  const said = panel.fieldConfig.defaults;
  const defaults = { ...usual, ...said };
  if (usual.custom || said.custom) defaults.custom = { ...usual.custom, ...said.custom };
  return { defaults, overrides: panel.fieldConfig.overrides };
};

// An option of a field as applyFieldOverrides() wants to know it: taken as it is.
const option = (id) => ({ id, path: id, name: id, process: (value) => value, shouldApply: () => true });
const optionsOf = ({ defaults, overrides }) => {
  const ids = Object.keys(defaults).flatMap((key) =>
    key === 'custom' ? Object.keys(defaults.custom).map((each) => `custom.${each}`) : [key]
  );
  const set = new Set([...ids, ...overrides.flatMap((each) => each.properties.map((property) => property.id))]);
  return new FieldConfigOptionsRegistry(() => [...set].map(option));
};

const named = (legend, metric) => legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => metric[label] ?? '');

// As the Prometheus data source has them: a frame for each series, or one for all of them in a table.
const seriesFrames = (answer) =>
  answer.series.map(({ metric, values }) => {
    const { __name__, ...labels } = metric;
    const shown = named(answer.legend, metric);
    return {
      refId: answer.refId,
      name: shown || __name__,
      length: values.length,
      fields: [
        { name: 'Time', type: FieldType.time, config: { interval: step }, values: values.map(([at]) => at) },
        {
          name: 'Value',
          type: FieldType.number,
          labels,
          config: shown ? { displayNameFromDS: shown } : {},
          values: values.map(([, value]) => value),
        },
      ],
    };
  });

const tableFrame = (answer) => {
  const labels = [...new Set(answer.series.flatMap(({ metric }) => Object.keys(metric)))].sort();
  const last = answer.series.map(({ values }) => values[values.length - 1]);
  return {
    refId: answer.refId,
    length: last.length,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: last.map(([at]) => at) },
      ...labels.map((label) => ({
        name: label,
        type: FieldType.string,
        config: { filterable: true },
        values: answer.series.map(({ metric }) => metric[label] ?? ''),
      })),
      { name: 'Value', type: FieldType.number, config: {}, values: last.map(([, value]) => value) },
    ],
  };
};

const framesOf = (panel) =>
  answers[panel.id].flatMap((answer) => (answer.table ? [tableFrame(answer)] : seriesFrames(answer)));

const transformed = (panel, frames) =>
  new Promise((resolve, reject) =>
    transformDataFrame(panel.transformations ?? [], frames).subscribe({ next: resolve, error: reject })
  );

const overridden = (panel, frames) => {
  const fieldConfig = fieldConfigOf(panel);
  const found = applyFieldOverrides({
    data: frames,
    fieldConfig,
    fieldConfigRegistry: optionsOf(fieldConfig),
    replaceVariables: (text) => text,
    theme,
    timeZone: TIME_ZONE,
  });
  cacheFieldDisplayNames(found);
  return found;
};

const marked = (u) => {
  const { ctx } = u;
  ctx.save();
  ctx.setLineDash([4, 4]);
  for (const { color, times } of marks) {
    ctx.strokeStyle = theme.visualization.getColorByName(color);
    for (const time of times) {
      const x = Math.round(u.valToPos(time, 'x', true)) + 0.5;
      ctx.beginPath();
      ctx.moveTo(x, u.bbox.top);
      ctx.lineTo(x, u.bbox.top + u.bbox.height);
      ctx.stroke();
    }
  }
  ctx.restore();
};

const Chart = ({ panel, frames, width, height }) => (
  <TimeSeries
    frames={frames}
    timeRange={timeRange}
    timeZone={TIME_ZONE}
    width={width}
    height={height}
    legend={panel.options.legend}
    options={panel.options}
  >
    {(builder) => {
      builder.addHook('draw', marked);
      return null;
    }}
  </TimeSeries>
);

const Stat = ({ panel, frames, width, height }) => {
  const { reduceOptions, graphMode, colorMode, textMode } = panel.options;
  const getValues = () =>
    getFieldDisplayValues({
      fieldConfig: fieldConfigOf(panel),
      reduceOptions,
      replaceVariables: (text) => text,
      theme,
      data: frames,
      sparkline: graphMode !== 'none',
      timeZone: TIME_ZONE,
    });
  const renderValue = ({ value, width, height, count, orientation }) => (
    <BigValue
      value={value.display}
      count={count}
      sparkline={value.sparkline}
      colorMode={colorMode}
      graphMode={graphMode}
      textMode={textMode}
      justifyMode="auto"
      parentOrientation={orientation}
      theme={theme}
      width={width}
      height={height}
    />
  );
  return (
    <VizRepeater
      getValues={getValues}
      renderValue={renderValue}
      width={width}
      height={height}
      source={frames}
      autoGrid={true}
      renderCounter={0}
      orientation="auto"
    />
  );
};

const Rows = ({ panel, frames, width, height }) => (
  <TableNG
    data={frames[0]}
    width={width}
    height={height}
    cellHeight={panel.options.cellHeight}
    sortBy={panel.options.sortBy}
    timeRange={timeRange}
    enableVirtualization={false}
  />
);

const NAMES = 180; // pixels that the names of a state timeline take

const States = ({ frames, width, height }) => {
  const rows = frames.map((frame) => ({
    name: frame.name,
    times: frame.fields[0].values,
    shown: frame.fields[1].values.map((value) => frame.fields[1].display(value)),
  }));
  const legend = new Map(rows.flatMap(({ shown }) => shown.map(({ text, color }) => [text, color])));
  const builder = new UPlotConfigBuilder(TIME_ZONE);
  builder.addScale({ scaleKey: 'x', orientation: 0, direction: 1, isTime: true, range: () => [from, to] });
  builder.addScale({ scaleKey: 'y', orientation: 1, direction: -1, range: () => [0, rows.length] });
  builder.addAxis({ scaleKey: 'x', isTime: true, placement: 'bottom', timeZone: TIME_ZONE, theme, grid: { show: false } });
  builder.addAxis({
    scaleKey: 'y',
    placement: 'left',
    size: NAMES,
    splits: () => rows.map((_, number) => number + 0.5),
    values: () => rows.map(({ name }) => name),
    theme,
    grid: { show: false },
    ticks: { show: false },
  });
  builder.addSeries({ scaleKey: 'y', theme, pathBuilder: () => null, pointsBuilder: () => undefined });
  builder.addHook('draw', (u) => {
    rows.forEach(({ times, shown }, number) => {
      const top = u.valToPos(number + 0.1, 'y', true);
      const bottom = u.valToPos(number + 0.9, 'y', true);
      shown.forEach(({ color }, at) => {
        const left = Math.round(u.valToPos(times[at], 'x', true));
        const right = Math.round(u.valToPos(Math.min(times[at] + step, to), 'x', true));
        u.ctx.fillStyle = color;
        u.ctx.fillRect(left, top, right - left, bottom - top);
      });
    });
    marked(u);
  });
  const data = [[from, to], [0, rows.length]];
  const items = [...legend].map(([label, color]) => ({ label, color, yAxis: 1 }));
  return (
    <VizLayout
      width={width}
      height={height}
      legend={
        <VizLayout.Legend placement="bottom">
          <VizLegend items={items} placement="bottom" displayMode="list" />
        </VizLayout.Legend>
      }
    >
      {(inner, high) => <UPlotChart config={builder} data={data} width={inner} height={high} />}
    </VizLayout>
  );
};

const KINDS = { timeseries: Chart, stat: Stat, table: Rows, 'state-timeline': States };

const placed = ({ x, y, w, h }) => {
  const column = (document.documentElement.clientWidth - 2 * EDGE + GAP) / COLUMNS;
  return { left: x * column, top: y * (ROW + GAP), width: w * column - GAP, height: h * (ROW + GAP) - GAP };
};

const Panel = ({ panel, frames }) => {
  const place = placed(panel.gridPos);
  const style = { position: 'absolute', ...place };
  if (panel.type === 'row') {
    return <div style={{ ...style, ...theme.typography.h5, lineHeight: `${ROW}px` }}>{panel.title}</div>;
  }
  const Kind = frames.length || panel.type === 'stat' ? KINDS[panel.type] : () => 'No data';
  return (
    <div className="panel" data-id={panel.id} style={style}>
      <PanelChrome title={panel.title} width={place.width} height={place.height} padding={panel.type === 'table' ? 'none' : 'md'}>
        {(width, height) => <Kind panel={panel} frames={frames} width={width} height={height} />}
      </PanelChrome>
    </div>
  );
};

const Head = () => {
  const variables = dashboard.templating.list.map(({ name, label }) => `${label}: ${name === 'datasource' ? 'Prometheus' : 'All'}`);
  const minutes = Math.round((to - from) / 60_000);
  return (
    <div style={{ padding: `${GAP}px 0 ${EDGE}px`, color: theme.colors.text.secondary }}>
      <span style={{ ...theme.typography.h3, color: theme.colors.text.primary, marginRight: 24 }}>{dashboard.title}</span>
      {variables.join(', ')}, {minutes} minutes, UTC. Drawn with @grafana/ui {versions.version}; Grafana itself looks a little
      different.
    </div>
  );
};

const Board = ({ panels }) => {
  const rows = Math.max(...panels.map(({ panel }) => panel.gridPos.y + panel.gridPos.h));
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ background: theme.colors.background.canvas, padding: EDGE, paddingTop: GAP }}>
        <Head />
        <div style={{ position: 'relative', height: rows * (ROW + GAP) - GAP }}>
          {panels.map((each) => (
            <Panel key={each.panel.id} {...each} />
          ))}
        </div>
      </div>
    </ThemeContext.Provider>
  );
};

// Whether there is anything of a series in a chart: its axes and grid are grey, and a mark is a pixel or two wide.
const hasColor = (canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const columns = new Set();
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue, alpha] = data.subarray(at, at + 4);
    if (alpha > 128 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60) columns.add((at / 4) % canvas.width);
  }
  return columns.size > 10 + 3 * marks.flatMap(({ times }) => times).length;
};

const isBlank = (panel, node) => {
  if (panel.type === 'table') return node.querySelectorAll('[role=row]').length < 2;
  if (panel.type === 'stat') return /^(|No data)$/.test(node.innerText.replace(panel.title, '').trim());
  return ![...node.querySelectorAll('canvas')].some(hasColor);
};

const isWide = (node) => {
  const right = node.getBoundingClientRect().right + 1;
  return [...node.querySelectorAll('*')].some((each) => {
    const scrolls = /auto|scroll/.test(getComputedStyle(each).overflowX) && each.scrollWidth > each.clientWidth + 1;
    return scrolls || each.getBoundingClientRect().right > right;
  });
};

const cut = (node) =>
  [...node.querySelectorAll('*')]
    .filter((each) => getComputedStyle(each).textOverflow === 'ellipsis' && each.scrollWidth > each.clientWidth)
    .map((each) => each.innerText);

window.panels = () =>
  dashboard.panels
    .filter((panel) => panel.type !== 'row')
    .map((panel) => {
      const node = document.querySelector(`.panel[data-id="${panel.id}"]`);
      return { title: panel.title, blank: !node || isBlank(panel, node), wide: !!node && isWide(node), cut: node ? cut(node) : [] };
    });

const main = async () => {
  const byId = new Map(Object.values(standardTransformers).map((each) => [each.id, each])); // some are there twice
  standardTransformersRegistry.setInit(() =>
    [...byId].map(([id, transformation]) => ({ id, name: id, transformation: async () => transformation }))
  );
  const panels = await Promise.all(
    dashboard.panels.map(async (panel) => ({
      panel,
      frames: panel.type === 'row' ? [] : overridden(panel, await transformed(panel, framesOf(panel))),
    }))
  );
  const root = createRoot(document.getElementById('root'));
  root.render(<GlobalStyles />);
  await new Promise((done) => setTimeout(done, 200));
  await Promise.all([400, 500].map((weight) => document.fonts.load(`${weight} 12px Inter`))); // a canvas waits for none
  root.render(<Board panels={panels} />);
  setTimeout(() => (window.DRAWN = true), 2000);
};

main();
