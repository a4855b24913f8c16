package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/usher-go/usher/internal/telemetry"
)

// The part of Grafana's model of a dashboard that ours needs.
type (
	dashboardModel struct {
		Title         string     `json:"title"`
		UID           string     `json:"uid"`
		Description   string     `json:"description"`
		Tags          []string   `json:"tags"`
		SchemaVersion int        `json:"schemaVersion"`
		Refresh       string     `json:"refresh"`
		Time          timeRange  `json:"time"`
		Templating    templating `json:"templating"`
		Panels        []panel    `json:"panels"`
	}
	timeRange struct {
		From string `json:"from"`
		To   string `json:"to"`
	}
	templating struct {
		List []variable `json:"list"`
	}
	variable struct {
		Name       string      `json:"name"`
		Label      string      `json:"label"`
		Type       string      `json:"type"`
		Query      string      `json:"query"`
		Datasource *datasource `json:"datasource,omitempty"`
		Refresh    int         `json:"refresh,omitempty"`
		Multi      bool        `json:"multi,omitempty"`
		IncludeAll bool        `json:"includeAll,omitempty"`
		AllValue   string      `json:"allValue,omitempty"`
	}
	datasource struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	panel struct {
		ID          int          `json:"id"`
		Type        string       `json:"type"`
		Title       string       `json:"title"`
		Description string       `json:"description,omitempty"`
		GridPos     gridPos      `json:"gridPos"`
		Datasource  *datasource  `json:"datasource,omitempty"`
		FieldConfig *fieldConfig `json:"fieldConfig,omitempty"`
		Targets     []target     `json:"targets,omitempty"`
	}
	gridPos struct {
		H int `json:"h"`
		W int `json:"w"`
		X int `json:"x"`
		Y int `json:"y"`
	}
	fieldConfig struct {
		Defaults struct {
			Unit string `json:"unit"`
			Min  int    `json:"min"`
		} `json:"defaults"`
		Overrides []struct{} `json:"overrides"`
	}
	target struct {
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	}
)

var prometheus = &datasource{"prometheus", "${datasource}"}

// filter selects the services and processes that a reader of the dashboard has chosen.
const filter = `job=~"$job", instance=~"$instance"`

// dashboard returns a dashboard with a row for each section and a panel for each
// instrument.
func dashboard() ([]byte, error) {
	d := dashboardModel{
		Title:         "usher",
		UID:           "usher",
		Description:   generated,
		Tags:          []string{"usher"},
		SchemaVersion: 39,
		Refresh:       "30s",
		Time:          timeRange{"now-6h", "now"},
		Templating: templating{[]variable{
			{Name: "datasource", Label: "Data source", Type: "datasource", Query: "prometheus"},
			choice("job", "Service", `label_values({__name__=~"usher_.+"}, job)`),
			choice("instance", "Process", `label_values({__name__=~"usher_.+", job=~"$job"}, instance)`),
		}},
	}
	known := instruments()
	const width, height = 12, 8
	y := 0
	add := func(p panel) {
		p.ID = len(d.Panels) + 1
		d.Panels = append(d.Panels, p)
	}
	for _, s := range sections {
		add(panel{Type: "row", Title: s.title, GridPos: gridPos{1, 2 * width, 0, y}})
		y++
		column := 0
		for _, q := range s.questions {
			i := known[q.instrument]
			if i == nil {
				return nil, fmt.Errorf("no package declares %s", q.instrument)
			}
			for _, p := range panels(i, q.text) {
				p.GridPos = gridPos{height, width, column * width, y}
				add(p)
				if column = 1 - column; column == 0 {
					y += height
				}
			}
		}
		if column == 1 {
			y += height
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(d)
	return b.Bytes(), err
}

// choice returns a variable with the values of a label, of which a reader may choose
// several.
func choice(name, title, query string) variable {
	return variable{Name: name, Label: title, Type: "query", Query: query, Datasource: prometheus, Refresh: 2, Multi: true, IncludeAll: true, AllValue: ".*"}
}

// panels returns the panels of an instrument.
func panels(i *telemetry.Instrument, question string) []panel {
	metric, by := metricName(i), labels(i)
	legend := make([]string, len(by))
	for n, name := range by {
		legend[n] = "{{" + name + "}}"
	}
	series := strings.Join(legend, " ")
	switch i.Kind {
	case telemetry.Histogram:
		var quantiles []target
		for _, q := range []string{"0.50", "0.99"} {
			quantiles = append(quantiles, target{
				Expr:         fmt.Sprintf("histogram_quantile(%s, %s)", q, sum(append(by, "le"), rate(metric+"_bucket", filter))),
				LegendFormat: strings.TrimSpace("p" + strings.TrimPrefix(q, "0.") + " " + series),
			})
		}
		all := []panel{newPanel(question, i.Description, "s", quantiles...)}
		if fails(i) {
			failed := append(by, underscored(errorType))
			all = append(all, newPanel(question+" Failures a second.", i.Description, "ops", target{
				Expr:         sum(failed, rate(metric+"_count", filter+`, error_type!=""`)),
				LegendFormat: strings.TrimSpace(series + " {{error_type}}"),
			}))
		}
		return all
	case telemetry.Gauge:
		return []panel{newPanel(question, i.Description, "short", target{Expr: sum(by, metric+"{"+filter+"}"), LegendFormat: series})}
	default:
		return []panel{newPanel(question, i.Description, "ops", target{Expr: sum(by, rate(metric, filter)), LegendFormat: series})}
	}
}

func newPanel(title, description, unit string, targets ...target) panel {
	p := panel{Type: "timeseries", Title: title, Description: description, Datasource: prometheus, FieldConfig: &fieldConfig{Overrides: []struct{}{}}, Targets: targets}
	p.FieldConfig.Defaults.Unit = unit
	for n := range p.Targets {
		p.Targets[n].RefID = string(rune('A' + n))
	}
	return p
}

// sum returns the query for the sums of another by labels.
func sum(by []string, query string) string {
	if len(by) == 0 {
		return "sum(" + query + ")"
	}
	return "sum by (" + strings.Join(by, ", ") + ") (" + query + ")"
}

// rate returns the query for the rates of the series of a metric that a filter selects.
func rate(metric, filter string) string {
	return "rate(" + metric + "{" + filter + "}[$__rate_interval])"
}
