package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"gonum.org/v1/plot/plotter"

	"github.com/usher-go/usher/benchmarks/internal/chart"
	"github.com/usher-go/usher/benchmarks/internal/loopback"
	"github.com/usher-go/usher/benchmarks/internal/stacks"
)

// A drawing is a chart for any page.
type drawing interface{ SVG(chart.Theme) []byte }

// charts draws what there are results for, by the name of the file.
func (r *Report) charts() map[string][]byte {
	files := make(map[string][]byte)
	draw := func(name string, d drawing, ok bool) {
		if ok {
			files[name+"-light.svg"] = d.SVG(chart.Light)
			files[name+"-dark.svg"] = d.SVG(chart.Dark)
		}
	}
	overhead := r.overhead()
	draw("overhead", overhead, len(overhead.Groups) > 0)
	throughput := r.throughput()
	draw("throughput", throughput, len(throughput.Groups) > 0)
	latency := r.latency()
	draw("latency", latency, len(latency.Lines) > 0)
	for _, s := range r.Scales {
		d, ok := r.drawing(s)
		draw(scaleFile(s), d, ok)
	}
	return files
}

// The works of the chart of layers: one or two of each.
var overheads = []struct{ layer, work, name string }{
	{"LimiterMiddleware", "allowed-with-fields", "Rate limit: admitted, with header fields"},
	{"LimiterMiddleware", "refused", "Rate limit: refused, with a body"},
	{"APIKey", "good", "API key: a good one"},
	{"JWT", "HS256", "JWT: HS256, seen before"},
	{"JWT", "ES256", "JWT: ES256, seen before"},
	{"Idempotency", "first-100B", "Idempotency: a first request of 100 B"},
	{"Idempotency", "replay-100B", "Idempotency: its repetition"},
	{"Envelope", "explicit-200B", "Envelope: a value of 200 B"},
	{"Envelope", "wrap-200B", "Envelope: around 200 B of JSON that a handler writes"},
}

const shown = 3 // rivals of a work, the quickest ones

func (r *Report) overhead() chart.Bars {
	bars := chart.Bars{
		Title:    "What a layer adds to a request",
		Subtitle: "Beyond router and handler; the quickest rivals of each. Less is better.",
		Axis:     "time per request, logarithmic", Log: true, Format: chart.Seconds,
	}
	for _, o := range overheads {
		row := r.row(o.layer, o.work)
		if usher, rivals, ok := r.quickest(row); ok {
			rivals = rivals[:min(shown, len(rivals))]
			bars.Groups = append(bars.Groups, chart.Group{Name: o.name, Bars: append([]chart.Bar{usher}, rivals...)})
		}
	}
	return bars
}

func sortBars(bars []chart.Bar) {
	slices.SortStableFunc(bars, func(a, b chart.Bar) int { return cmp.Compare(a.Value, b.Value) })
}

// The works over the loopback for readers, in their order.
var serverWorks = []struct{ work, name string }{
	{"get-key", "GET with an API key"},
	{"get-jwt", "GET with a JWT"},
	{"post-key", "POST with an API key and an idempotency key"},
}

// stackNames are the stacks for readers.
var stackNames = map[stacks.Name]string{
	stacks.Bare: "bare handler", stacks.Usher: "usher", stacks.Today: "usual parts",
}

func (r *Report) throughput() chart.Bars {
	bars := chart.Bars{
		Title:    "What a processor can serve",
		Subtitle: "Requests per second of processor time of the server: whole stacks over the loopback, GOMAXPROCS=1. More is better.",
		Axis:     "requests per processor second", Format: chart.Count,
	}
	for _, w := range serverWorks {
		group := chart.Group{Name: w.name}
		for _, stack := range stacks.Names() {
			cpu, ok := r.set.Median(loopback.Closed(w.work, 1, string(stack)), "cpu-sec/op")
			if !ok {
				continue
			}
			bar := chart.Bar{Name: stackNames[stack], Value: 1 / cpu.Median, Lo: 1 / cpu.Hi, Hi: 1 / cpu.Lo, Ours: stack == stacks.Usher}
			if share, ok := keeps(r.set, w.work, 1, string(stack), "cpu-sec/op"); ok && stack != stacks.Bare {
				bar.Note = fmt.Sprintf("%.0f %% of bare", 100*share.Median)
			}
			group.Bars = append(group.Bars, bar)
		}
		if len(group.Bars) > 0 {
			bars.Groups = append(bars.Groups, group)
		}
	}
	return bars
}

func (r *Report) latency() chart.Lines {
	lines := chart.Lines{
		Title:    "How long a response takes",
		Subtitle: fmt.Sprintf("GET with an API key, %s requests a second on a fixed schedule, counted from when each was due; GOMAXPROCS=2", r.set.Config("rate")),
		X:        "percentile of requests", Y: "latency, logarithmic", YFormat: chart.Seconds,
	}
	for _, p := range loopback.Percentiles {
		lines.XNames = append(lines.XNames, strings.Replace(fmt.Sprintf("p%g", p), "p100", "longest", 1))
	}
	for _, stack := range stacks.Names() {
		line := chart.Line{Name: stackNames[stack], Ours: stack == stacks.Usher}
		for i, p := range loopback.Percentiles {
			if m, ok := r.set.Median(loopback.Open("get-key", 2, string(stack)), fmt.Sprintf("p%g-sec", p)); ok {
				line.Points = append(line.Points, plotter.XY{X: float64(i), Y: m.Median})
			}
		}
		if len(line.Points) > 0 {
			lines.Lines = append(lines.Lines, line)
		}
	}
	return lines
}
