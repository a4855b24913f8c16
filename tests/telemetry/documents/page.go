package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
	"text/template"

	"github.com/usher-go/usher/internal/telemetry"
)

//go:embed telemetry.md.tmpl
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"metric": metricName,
	"label":  label,
	"code":   func(s string) string { return "`" + s + "`" },
	"cell":   func(s string) string { return strings.ReplaceAll(strings.ReplaceAll(s, "\n", " "), "|", `\|`) },
}).Parse(pageText))

// A line is a message of the log.
type line struct{ Message, Level, Attributes string }

// logs are all messages of the module. Those of reporters begin with their source.
var logs = []line{
	{"envelope: request failed", "error", "`method`, `route`, `request_id`, `error`, and for a panic `panic` and `stack`"},
	{"envelope: handler panicked", "error", "`method`, `route`, `request_id`, `panic`, `stack`"},
	{"<source>: failure", "error", "`error`, or `panic` and `stack`; `suppressed`. The sources are " + strings.Join(quoted(sources), ", ")},
	{"<source>: OnError panicked", "error", "`failure`, `panic`, `stack`; `suppressed`"},
	{"ratelimit: decision", "debug", "`policy`, `key` as a hash, `limit`, `cost`, `remaining`, `admitted`, `violated`, `shadow`, `wait`, where Config.OnDecision is LogDecisions"},
	{"idempotency: how many records fit into a Memory", "debug", "`bytes`, `with_100_bytes`, `with_4_KiB`"},
}

// sources are what failures are reported of.
var sources = []string{
	"apikey", "idempotency", "jwk.Pool", "jwk.Remote", "jwtauth.Introspection", "jwtauth.RevocationMirror", "jwtauth.Verifier",
	"ratelimit", "session.Manager", "usher: Access",
}

func quoted(names []string) (all []string) {
	for _, name := range names {
		all = append(all, "`"+name+"`")
	}
	return all
}

// page returns the page about the telemetry of the module.
func page() ([]byte, error) {
	known := instruments()
	type entry struct {
		*telemetry.Instrument
		Question string
	}
	type chapter struct {
		Title   string
		Note    string
		Entries []entry
	}
	var data struct {
		Generated string
		Sections  []chapter
		Spans     []*telemetry.Attribute
		Alerts    []alert
		Recorded  []recording
		Logs      []line
	}
	data.Generated, data.Alerts, data.Recorded, data.Logs = generated, alerts, recordings, logs
	for _, s := range sections {
		c := chapter{Title: s.title, Note: s.note}
		for _, q := range s.questions {
			i := known[q.instrument]
			if i == nil {
				return nil, fmt.Errorf("no package declares %s", q.instrument)
			}
			c.Entries = append(c.Entries, entry{i, q.text})
		}
		data.Sections = append(data.Sections, c)
	}
	for _, a := range telemetry.Attributes() {
		if a.Span {
			data.Spans = append(data.Spans, a)
		}
	}
	var b bytes.Buffer
	err := pageTemplate.Execute(&b, data)
	return b.Bytes(), err
}
