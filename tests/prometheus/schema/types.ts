// SPDX-License-Identifier: GPL-2.0-or-later
// What deploy/grafana/npd6-xdp.json has to be, by @grafana/schema: a panel with the options and fields of its own type.

import type {
  AnnotationQuery,
  DataQuery,
  Dashboard,
  FieldConfig,
  FieldConfigSource,
  Panel,
  RowPanel,
  VariableModel,
} from '@grafana/schema';
import type * as stateTimeline from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as timeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has the values of enums, not their names.
type Plain<T> = T extends string
  ? `${T}`
  : T extends readonly (infer Item)[]
    ? Plain<Item>[]
    : T extends object
      ? { [Key in keyof T]: Plain<T[Key]> }
      : T;

// The schema leaves these to plugins; here they are as Grafana's Prometheus plugin reads them.
interface PrometheusQuery extends DataQuery {
  expr: string;
  legendFormat?: string;
  instant?: boolean;
  range?: boolean;
  format?: 'time_series' | 'table' | 'heatmap';
}
interface PrometheusAnnotation extends AnnotationQuery {
  expr: string;
  titleFormat?: string;
  textFormat?: string;
  tagKeys?: string;
  useValueForTime?: boolean;
}
interface PrometheusVariable extends VariableModel {
  definition?: string;
}

// What is left out of options has its default; nothing else may be in them.
type Of<Options, Custom> = Plain<
  Omit<Panel, 'fieldConfig' | 'options' | 'targets'> & {
    fieldConfig: Omit<FieldConfigSource, 'defaults'> & {
      defaults: Omit<FieldConfig, 'custom'> & { custom?: Partial<Custom> };
    };
    options: Partial<Options>;
    targets: PrometheusQuery[];
  }
>;

export interface Panels {
  row: Plain<RowPanel>;
  stat: Of<stat.Options, Record<string, never>>;
  table: Of<table.Options, table.FieldConfig>;
  timeseries: Of<timeSeries.Options, timeSeries.FieldConfig>;
  'state-timeline': Of<stateTimeline.Options, stateTimeline.FieldConfig>;
}
export type Frame = Plain<Omit<Dashboard, 'annotations' | 'panels' | 'templating'>>;
export type Annotations = Plain<PrometheusAnnotation>[];
export type Variables = Plain<PrometheusVariable>[];
