package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/usher-go/usher/benchmarks/internal/chart"
	"github.com/usher-go/usher/benchmarks/internal/contest"
	"github.com/usher-go/usher/benchmarks/internal/loopback"
	"github.com/usher-go/usher/benchmarks/internal/results"
)

// A comparison is a target and what was measured for it.
type comparison struct {
	layer, work, target, measured string
	// verdict is met or missed, by the median.
	met bool
	// open reports that the bounds of the ratio lie on both sides of the target.
	open bool
}

func (c comparison) verdict() string {
	verdict := "**missed**"
	if c.met {
		verdict = "met"
	}
	if c.open {
		verdict += ", within the spread"
	}
	return verdict
}

// compareAll compares the results with all targets for which there are some.
func compareAll(s *results.Set, t Table) (all []comparison) {
	for _, row := range t.Rows {
		for _, speed := range row.Speeds {
			if c, ok := compareSpeed(s, row, speed); ok {
				all = append(all, c)
			}
		}
		for _, allocs := range row.Allocs {
			if allocs.Guard {
				continue
			}
			if c, ok := compareAllocs(s, row, allocs); ok {
				all = append(all, c)
			}
		}
	}
	for _, target := range t.Shares {
		all = append(all, compareShare(s, target)...)
	}
	return all
}

// nanoseconds is what [contest] calls a figure.
func nanoseconds(l results.Lookup) contest.Figure {
	return func(benchmark string) (float64, bool) {
		v, ok := l(measuredName(benchmark), "sec/op")
		return v * 1e9, ok
	}
}

func allocations(l results.Lookup) contest.Figure {
	return func(benchmark string) (float64, bool) { return l(measuredName(benchmark), "allocs/op") }
}

func measuredName(benchmark string) string { return strings.TrimPrefix(benchmark, "Benchmark") }

// compareSpeed compares a contestant with its quickest rival by the medians. The
// bounds of their ratio are those of the ratios within the rounds.
func compareSpeed(s *results.Set, row contest.Row, speed contest.Speed) (comparison, bool) {
	overall, ok := speed.Compare(row, nanoseconds(s.Medians()))
	if !ok {
		return comparison{}, false
	}
	speed.Against = []string{overall.Rival}
	ratio, ok := s.Each(func(l results.Lookup) (float64, bool) {
		v, ok := speed.Compare(row, nanoseconds(l))
		return v.Ratio, ok
	})
	if !ok {
		return comparison{}, false
	}
	target := fmt.Sprintf("≤ %s × %s", number(speed.Ratio), code(overall.Rival))
	if speed.Plus > 0 {
		target += " + " + chart.Seconds(speed.Plus.Seconds())
	}
	if speed.StandsFor != "" {
		target += " (" + speed.StandsFor + ")"
	}
	if speed.Of != "" {
		target = code(speed.Of) + " " + target
	}
	measured := fmt.Sprintf("%s; %s against %s", ratioText(ratio), chart.Seconds(overall.Measured*1e-9), chart.Seconds(overall.Best*1e-9))
	return comparison{
		layer: title(row.Layer), work: row.Work, target: target, measured: measured,
		met: ratio.Median <= speed.Ratio, open: ratio.Lo <= speed.Ratio && speed.Ratio < ratio.Hi,
	}, true
}

func compareAllocs(s *results.Set, row contest.Row, bound contest.Allocs) (comparison, bool) {
	got, ok := row.Net(bound.Contestant(), allocations(s.Medians()))
	if !ok {
		return comparison{}, false
	}
	target := fmt.Sprintf("≤ %d allocations", bound.Most)
	if bound.Of != "" {
		target = code(bound.Of) + " " + target
	}
	return comparison{
		layer: title(row.Layer), work: row.Work, target: target, measured: number(got),
		met: math.Round(got) <= float64(bound.Most),
	}, true
}

// compareShare compares the share of the bare handler's throughput that usher keeps
// with its target: by the processor time of the server, and as it was measured.
func compareShare(s *results.Set, t loopback.Target) (all []comparison) {
	for _, by := range []struct{ unit, what string }{
		{"cpu-sec/op", "by processor time per request"},
		{"sec/op", "as measured, clients on the same machine"},
	} {
		share, ok := keeps(s, t.Work, t.Procs, "usher", by.unit)
		if !ok {
			continue
		}
		all = append(all, comparison{
			layer: "Server", work: fmt.Sprintf("%s, GOMAXPROCS=%d", t.Work, t.Procs),
			target:   fmt.Sprintf("≥ %s of bare's requests/s, %s", number(t.Share), by.what),
			measured: ratioText(share),
			met:      share.Median >= t.Share, open: share.Lo < t.Share && t.Share <= share.Hi,
		})
	}
	return all
}

// keeps is the share of the bare handler's throughput that a stack has.
func keeps(s *results.Set, work string, procs int, stack, unit string) (results.Summary, bool) {
	return s.Each(func(l results.Lookup) (float64, bool) {
		bare, _ := l(loopback.Closed(work, procs, "bare"), unit)
		this, ok := l(loopback.Closed(work, procs, stack), unit)
		return bare / this, ok
	})
}
