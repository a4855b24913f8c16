package report

import (
	"fmt"
	"strings"

	"github.com/usher-go/usher/benchmarks/internal/chart"
	"github.com/usher-go/usher/benchmarks/internal/contest"
	"github.com/usher-go/usher/benchmarks/internal/results"
)

// net summarizes what a contestant costs beyond its base.
func (r *Report) net(row contest.Row, name, unit string) (results.Summary, bool) {
	return r.set.Each(func(l results.Lookup) (float64, bool) {
		return row.Net(name, func(benchmark string) (float64, bool) { return l(measuredName(benchmark), unit) })
	})
}

// times summarizes the cost of a contestant as a multiple of that of usher.
func (r *Report) times(row contest.Row, name string) (results.Summary, bool) {
	return r.set.Each(func(l results.Lookup) (float64, bool) {
		ours, _ := row.Net(contest.Usher, nanoseconds(l))
		theirs, ok := row.Net(name, nanoseconds(l))
		return theirs / ours, ok && ours > 0
	})
}

func (r *Report) layers(b *strings.Builder) {
	b.WriteString(`## Layer by layer

Time, bytes and allocations per operation, without those of router and handler alone,
which stand first where there are such. In italics: what does only a part of the work.

`)
	layer := ""
	for _, row := range r.Rows { // layer after layer
		rows := r.contestants(row)
		if len(rows) == 0 {
			continue
		}
		if row.Layer != layer {
			layer = row.Layer
			fmt.Fprintf(b, "### %s\n\n", title(layer))
		}
		fmt.Fprintf(b, "%s: %s.\n\n", code(row.Work), row.About)
		table(b, "lrrrrrl", []string{"", "time", "spread", "× usher", "B", "allocs", "leaves out"}, rows)
		for _, missing := range row.Missing {
			fmt.Fprintf(b, "Not here: %s, %s.\n\n", missing.Name, missing.Why)
		}
	}
}

func (r *Report) contestants(row contest.Row) (rows [][]string) {
	for _, c := range row.Contestants {
		time, ok := r.net(row, c.Name, "sec/op")
		if !ok {
			continue
		}
		cells := []string{c.Name, chart.Seconds(time.Median), spread(time), "", "", "", c.LeavesOut}
		if times, ok := r.times(row, c.Name); ok && !c.Floor && c.Name != contest.Usher {
			cells[3] = number(times.Median)
		}
		if size, ok := r.net(row, c.Name, "B/op"); ok {
			cells[4] = number(size.Median)
		}
		if allocs, ok := r.net(row, c.Name, "allocs/op"); ok {
			cells[5] = number(allocs.Median)
		}
		switch {
		case c.Name == contest.Usher:
			cells[0] = "**" + c.Name + "**"
		case c.Floor:
			cells[0] = "*" + c.Name + "*"
		}
		rows = append(rows, cells)
	}
	return rows
}

// quickest returns the rivals of usher in a row by their time, the quickest first, and
// usher itself.
func (r *Report) quickest(row contest.Row) (usher chart.Bar, rivals []chart.Bar, ok bool) {
	for _, c := range row.Contestants {
		time, measured := r.net(row, c.Name, "sec/op")
		if c.Floor || !measured || time.Median <= 0 {
			continue
		}
		bar := chart.Bar{Name: c.Name, Value: time.Median, Lo: time.Lo, Hi: time.Hi}
		if allocs, ok := r.net(row, c.Name, "allocs/op"); ok {
			bar.Note = plural(allocs.Median, "alloc")
		}
		switch {
		case c.Name == contest.Usher:
			bar.Ours = true
			usher, ok = bar, true
		case !strings.HasPrefix(c.Name, contest.Usher):
			rivals = append(rivals, bar)
		}
	}
	sortBars(rivals)
	return usher, rivals, ok
}
