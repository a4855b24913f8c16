package report

import (
	"fmt"
	"strings"

	"golang.org/x/perf/benchunit"
	"gonum.org/v1/plot/plotter"

	"github.com/usher-go/usher/benchmarks/internal/chart"
	"github.com/usher-go/usher/benchmarks/internal/contest"
	"github.com/usher-go/usher/benchmarks/internal/results"
)

// scaleTitles are the scales for readers.
var scaleTitles = map[string]string{
	"ScaleKeys":       "Cost of a decision against the number of keys",
	"ScalePolicies":   "Cost of a decision against the number of policies",
	"ScaleGoroutines": "Cost of a decision against the number of goroutines",
	"ScaleFirst":      "Cost of a first request against its size",
	"ScaleReplay":     "Cost of a repetition against its size",
	"ScaleExplicit":   "Cost of a response against its size",
	"ScaleWrap":       "Cost of wrapping a response against its size",
	"ScaleMemory":     "Memory under a flood of new keys",
	"ScalePause":      "Longest call in a flood of new keys",
}

func scaleTitle(s contest.Scale) string { return or(scaleTitles[s.Layer], s.Layer) }

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// at summarizes what was measured of a contestant at a point, in the unit of the scale.
func (r *Report) at(s contest.Scale, point int, contestant string) (results.Summary, bool) {
	_, unit := benchunit.Tidy(1, s.Unit)
	return r.set.Median(measuredName(s.Name(point, contestant)), unit)
}

// figure is the value of a summary that is shown: the median, or of the longest call
// the least of all rounds, as other programs on the machine lengthen it.
func figure(s contest.Scale, m results.Summary) float64 {
	if s.Layer == "ScalePause" {
		return m.Least
	}
	return m.Median
}

func inUnit(s contest.Scale) func(float64) string {
	if strings.HasSuffix(s.Unit, "-B") {
		return chart.Bytes
	}
	return chart.Seconds
}

func onAxis(s contest.Scale) func(float64) string {
	if s.Axis == "bytes" {
		return chart.Size
	}
	return chart.Count
}

// axis describes what grows.
func axis(s contest.Scale) string {
	if s.Axis == "bytes" {
		return "size" // which has its unit
	}
	return s.Axis
}

// lines draws a scale.
func (r *Report) lines(s contest.Scale) chart.Lines {
	lines := chart.Lines{
		Title: scaleTitle(s), Subtitle: sentence(s.About) + ". Less is better.",
		X: axis(s) + ", logarithmic", Y: "time, logarithmic", XFormat: onAxis(s), YFormat: inUnit(s),
	}
	if s.Layer == "ScaleMemory" {
		lines.Y = "heap, logarithmic"
	}
	for _, c := range s.Contestants {
		line := chart.Line{Name: c.Name, Ours: c.Name == contest.Usher}
		for _, point := range s.Points {
			if m, ok := r.at(s, point, c.Name); ok && figure(s, m) > 0 {
				line.Points = append(line.Points, plotter.XY{X: float64(point), Y: figure(s, m)})
			}
		}
		if len(line.Points) > 1 {
			lines.Lines = append(lines.Lines, line)
		}
	}
	return lines
}

// drawing is the chart of a scale: of lines, or of bars where only one point was
// measured, or none.
func (r *Report) drawing(s contest.Scale) (drawing, bool) {
	if lines := r.lines(s); len(lines.Lines) > 0 {
		return lines, true
	}
	bars := chart.Bars{
		Title: scaleTitle(s), Subtitle: sentence(s.About) + ". Less is better.",
		Axis: "time, logarithmic", Log: true, Format: inUnit(s),
	}
	for _, point := range s.Points {
		group := chart.Group{Name: onAxis(s)(float64(point)) + " " + s.Axis}
		for _, c := range s.Contestants {
			if m, ok := r.at(s, point, c.Name); ok && figure(s, m) > 0 {
				group.Bars = append(group.Bars, chart.Bar{Name: c.Name, Value: figure(s, m), Ours: c.Name == contest.Usher})
			}
		}
		if len(group.Bars) > 0 {
			bars.Groups = append(bars.Groups, group)
		}
	}
	return bars, len(bars.Groups) > 0
}

func scaleFile(s contest.Scale) string {
	return "scale-" + strings.ToLower(strings.TrimPrefix(s.Layer, "Scale"))
}

func (r *Report) scale(b *strings.Builder) {
	heading := "## How costs grow\n\n"
	for _, s := range r.Scales {
		head, rows := r.points(s)
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintf(b, "%s### %s\n\n%s.", heading, scaleTitle(s), sentence(s.About))
		if s.Layer == "ScalePause" {
			b.WriteString(" The shortest of\nall rounds: whatever else runs on the machine makes it longer.")
		}
		b.WriteString("\n\n")
		heading = ""
		if _, ok := r.drawing(s); ok {
			b.WriteString(picture("", scaleFile(s), scaleTitle(s)))
		}
		table(b, "l"+strings.Repeat("r", len(head)-1), head, rows)
	}
}

// points is a table with a row for each contestant and a column for each point that was
// measured.
func (r *Report) points(s contest.Scale) (head []string, rows [][]string) {
	head = []string{axis(s)}
	for _, point := range s.Points {
		for _, c := range s.Contestants {
			if _, ok := r.at(s, point, c.Name); ok {
				head = append(head, onAxis(s)(float64(point)))
				break
			}
		}
	}
	for _, c := range s.Contestants {
		cells := []string{c.Name}
		for _, point := range s.Points[:len(head)-1] {
			cell := ""
			if m, ok := r.at(s, point, c.Name); ok {
				cell = inUnit(s)(figure(s, m))
			}
			cells = append(cells, cell)
		}
		if strings.Join(cells[1:], "") == "" {
			continue
		}
		switch {
		case c.Name == contest.Usher:
			cells[0] = "**" + c.Name + "**"
		case c.Floor:
			cells[0] = "*" + c.Name + "*"
		}
		rows = append(rows, cells)
	}
	return head, rows
}
