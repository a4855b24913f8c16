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

// A judgement is a target and what was measured for it.
type judgement struct {
	layer, work, target, measured string
	// verdict is met or missed, by the median.
	met bool
	// open says that the bounds of the ratio lie on both sides of the target.
	open bool
}

func (j judgement) verdict() string {
	verdict := "**missed**"
	if j.met {
		verdict = "met"
	}
	if j.open {
		verdict += ", within the spread"
	}
	return verdict
}

// judge judges all targets for which there are results.
func judge(s *results.Set, t Table) (all []judgement) {
	for _, row := range t.Rows {
		for _, speed := range row.Speeds {
			if j, ok := judgeSpeed(s, row, speed); ok {
				all = append(all, j)
			}
		}
		for _, allocs := range row.Allocs {
			if allocs.Guard {
				continue
			}
			if j, ok := judgeAllocs(s, row, allocs); ok {
				all = append(all, j)
			}
		}
	}
	for _, target := range t.Shares {
		all = append(all, judgeShare(s, target)...)
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

// judgeSpeed holds a contestant against the quickest rival by the medians, and gives
// the ratio of both the bounds of the ratios within the rounds.
func judgeSpeed(s *results.Set, row contest.Row, speed contest.Speed) (judgement, bool) {
	overall, ok := speed.Judge(row, nanoseconds(s.Medians()))
	if !ok {
		return judgement{}, false
	}
	speed.Against = []string{overall.Rival}
	ratio, ok := s.Each(func(l results.Lookup) (float64, bool) {
		v, ok := speed.Judge(row, nanoseconds(l))
		return v.Ratio, ok
	})
	if !ok {
		return judgement{}, false
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
	return judgement{
		layer: title(row.Layer), work: row.Work, target: target, measured: measured,
		met: ratio.Median <= speed.Ratio, open: ratio.Lo <= speed.Ratio && speed.Ratio < ratio.Hi,
	}, true
}

func judgeAllocs(s *results.Set, row contest.Row, bound contest.Allocs) (judgement, bool) {
	got, ok := row.Net(bound.Contestant(), allocations(s.Medians()))
	if !ok {
		return judgement{}, false
	}
	target := fmt.Sprintf("≤ %d allocations", bound.Most)
	if bound.Of != "" {
		target = code(bound.Of) + " " + target
	}
	return judgement{
		layer: title(row.Layer), work: row.Work, target: target, measured: number(got),
		met: math.Round(got) <= float64(bound.Most),
	}, true
}

// judgeShare judges how much of the bare handler's throughput usher keeps: by the
// processor time of the server, and as it was measured.
func judgeShare(s *results.Set, t loopback.Target) (all []judgement) {
	for _, by := range []struct{ unit, what string }{
		{"cpu-sec/op", "by processor time per request"},
		{"sec/op", "as measured, clients on the same machine"},
	} {
		share, ok := keeps(s, t.Work, t.Procs, "usher", by.unit)
		if !ok {
			continue
		}
		all = append(all, judgement{
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
