package main

import (
	"strings"

	"github.com/usher-go/usher/internal/telemetry"
)

// instruments returns the instruments of the module by their names.
func instruments() map[string]*telemetry.Instrument {
	all := make(map[string]*telemetry.Instrument)
	for _, i := range telemetry.Instruments() {
		all[i.Name] = i
	}
	return all
}

// metricName returns the name of i in Prometheus, as the exporters of OpenTelemetry and
// the OTLP receiver of Prometheus translate it by default. The series of a histogram have
// a further suffix.
func metricName(i *telemetry.Instrument) string {
	name := underscored(i.Name)
	if i.Unit == "s" {
		name += "_seconds"
	}
	if i.Kind == telemetry.Counter {
		name += "_total"
	}
	return name
}

// label returns the name of a in Prometheus.
func label(a *telemetry.Attribute) string { return underscored(a.Name) }

// underscored returns a name of OpenTelemetry with the separators of Prometheus.
func underscored(name string) string { return strings.ReplaceAll(name, ".", "_") }

// labels returns the names in Prometheus of all attributes of i but the one for errors,
// which has queries of its own.
func labels(i *telemetry.Instrument) (names []string) {
	for _, a := range i.Attributes {
		if a.Name != errorType {
			names = append(names, label(a))
		}
	}
	return names
}

// errorType is the attribute of what has failed.
const errorType = "error.type"

// fails reports whether measurements of i have the attribute of what has failed.
func fails(i *telemetry.Instrument) bool { return len(labels(i)) < len(i.Attributes) }
