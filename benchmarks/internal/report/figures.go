package report

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/usher-go/usher/benchmarks/internal/chart"
	"github.com/usher-go/usher/benchmarks/internal/contest"
	"github.com/usher-go/usher/benchmarks/internal/loopback"
)

// The lines of a README between which its figures stand.
const (
	figuresBegin = "<!-- figures:begin -->\n"
	figuresEnd   = "<!-- figures:end -->"
)

// WriteFigures replaces the figures in the README at path.
func (r *Report) WriteFigures(path string) error {
	readme, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, _, after, err := splitFigures(readme)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(before+r.Figures()+after), 0o644)
}

// splitFigures returns the text up to the figures with their first line, the figures,
// and the rest with their last line.
func splitFigures(readme []byte) (before, figures, after string, err error) {
	begin, end := bytes.Index(readme, []byte(figuresBegin)), bytes.Index(readme, []byte(figuresEnd))
	if begin < 0 || end < begin {
		return "", "", "", fmt.Errorf("report: no %q and %q", strings.TrimSpace(figuresBegin), figuresEnd)
	}
	begin += len(figuresBegin)
	return string(readme[:begin]), string(readme[begin:end]), string(readme[end:]), nil
}

// The README shows the report from the root of the repository.
const reportDir = "benchmarks/report/"

// Figures is the part of the README about the results.
func (r *Report) Figures() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Medians of %d rounds with %s on one machine\n(%s).\nEach is beside the quickest of the others, and without router and handler. [The\nreport](%sREADME.md) has all of them, what each leaves out, and the spread.\n\n",
		r.set.Rounds(), r.set.Config("go"), or(r.set.Config("cpu"), "unknown processor"), reportDir)
	b.WriteString(picture(reportDir, "overhead", "Time that one layer adds to a request"))
	var rows [][]string
	for _, o := range overheads {
		row := r.row(o.layer, o.work)
		usher, rivals, ok := r.quickest(row)
		if !ok || len(rivals) == 0 {
			continue
		}
		best := rivals[0]
		times, _ := r.times(row, best.Name)
		rows = append(rows, []string{
			o.name, fmt.Sprintf("%s, %s", chart.Seconds(usher.Value), usher.Note),
			fmt.Sprintf("%s, %s (%s)", chart.Seconds(best.Value), best.Note, best.Name), number(times.Median),
		})
	}
	table(&b, "lrrr", []string{"", "usher", "quickest of the others", "× usher"}, rows)
	b.WriteString(r.serverFigures())
	b.WriteString(r.memoryFigures())
	return b.String()
}

func (r *Report) memoryFigures() string {
	i := slices.IndexFunc(r.Scales, func(s contest.Scale) bool { return s.Layer == "ScaleMemory" })
	if i < 0 || len(r.lines(r.Scales[i]).Lines) == 0 {
		return ""
	}
	return "What limiters hold on the heap after a flood of keys that come once each:\n\n" +
		picture(reportDir, scaleFile(r.Scales[i]), "Memory under a flood of new keys")
}

func (r *Report) serverFigures() string {
	var b strings.Builder
	share := func(work, stack string) (string, bool) {
		s, ok := keeps(r.set, work, 1, stack, "cpu-sec/op")
		return fmt.Sprintf("%.0f %%", 100*s.Median), ok
	}
	var rows [][]string
	for _, w := range serverWorks {
		usher, ok := share(w.work, "usher")
		if !ok {
			continue
		}
		today, _ := share(w.work, "today")
		allocs := func(stack string) string {
			m, _ := r.set.Median(loopback.Closed(w.work, 1, stack), "allocs/op")
			return fmt.Sprintf("%.0f", m.Median)
		}
		rows = append(rows, []string{w.name, usher, today, allocs("bare"), allocs("usher"), allocs("today")})
	}
	if len(rows) == 0 {
		return ""
	}
	b.WriteString("Whole servers over the loopback, in requests per processor second: what usher and the\nusual parts keep of a bare handler, and the allocations of a request.\n\n")
	b.WriteString(picture(reportDir, "throughput", "Requests per second of processor time: a bare handler, usher, and the usual parts"))
	table(&b, "lrrrrr", []string{"", "usher keeps", "usual parts keep", "allocs: bare", "usher", "usual parts"}, rows)
	return b.String()
}
