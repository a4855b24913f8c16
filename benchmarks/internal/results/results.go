// Package results reads measurements in the format of Go benchmarks, in rounds, and
// summarizes them by golang.org/x/perf/benchmath: medians with the bounds of their 95 %
// confidence interval, and ratios likewise.
package results

import (
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
)

// confidence of all intervals.
const confidence = 0.95

// A Set is what was measured. Benchmarks are named without "Benchmark" and without
// GOMAXPROCS at the end, and units are in seconds and bytes: "sec/op", "B/op".
type Set struct {
	names  []string // as they came first
	values map[series]map[int]float64
	config map[string]string
	rounds map[int]bool
}

// A series is what is measured once a round.
type series struct{ name, unit string }

// Read reads results. Each has the number of its round in the configuration line
// "round".
func Read(r io.Reader) (*Set, error) {
	s := &Set{values: map[series]map[int]float64{}, config: map[string]string{}, rounds: map[int]bool{}}
	for reader := benchfmt.NewReader(r, "results"); ; {
		if !reader.Scan() {
			return s, reader.Err()
		}
		switch record := reader.Result().(type) {
		case *benchfmt.Result:
			if err := s.add(record); err != nil {
				return nil, err
			}
		case *benchfmt.SyntaxError:
			return nil, record
		}
	}
}

func (s *Set) add(r *benchfmt.Result) error {
	round, err := strconv.Atoi(r.GetConfig("round"))
	if err != nil {
		return fmt.Errorf("results: %s has no round: %w", r.Name, err)
	}
	s.rounds[round] = true
	for _, c := range r.Config {
		if c.Key != "round" {
			s.config[c.Key] = string(c.Value)
		}
	}
	name := plain(r.Name)
	if !slices.Contains(s.names, name) {
		s.names = append(s.names, name)
	}
	for _, v := range r.Values {
		at := series{name, v.Unit}
		if s.values[at] == nil {
			s.values[at] = map[int]float64{}
		}
		s.values[at][round] = v.Value
	}
	return nil
}

var procs = regexp.MustCompile(`-\d+$`)

// plain is a name without the GOMAXPROCS that package testing adds.
func plain(name benchfmt.Name) string {
	_, parts := name.Parts()
	full := name.String()
	if len(parts) > 0 && procs.Match(parts[len(parts)-1]) {
		full = full[:len(full)-len(parts[len(parts)-1])]
	}
	return full
}

// Names returns the names in the order in which they were first measured.
func (s *Set) Names() []string { return slices.Clone(s.names) }

// Rounds returns how many rounds there were.
func (s *Set) Rounds() int { return len(s.rounds) }

// Config returns a line of the configuration, or "" without one.
func (s *Set) Config(key string) string { return s.config[key] }

// A Summary is a median with the bounds of its confidence interval, and the least value. With fewer than six
// rounds there is no such interval, and the bounds are the least and the greatest value.
type Summary struct {
	Median, Lo, Hi float64
	Least          float64
	N              int
}

// A Lookup returns what was measured of a benchmark, in a round or over all of them. It
// reports false if nothing was.
type Lookup func(name, unit string) (value float64, ok bool)

// Each summarizes what of returns for each round, leaving out rounds for which it
// reports false. So a ratio compares what ran within one round, on a machine in the
// same state: what disturbs a whole round disturbs no ratio.
func (s *Set) Each(of func(Lookup) (float64, bool)) (Summary, bool) {
	var values []float64
	for round := range s.rounds {
		v, ok := of(func(name, unit string) (float64, bool) {
			v, ok := s.values[series{name, unit}][round]
			return v, ok
		})
		if ok && !math.IsNaN(v) && !math.IsInf(v, 0) {
			values = append(values, v)
		}
	}
	return summarize(values)
}

// Median summarizes what was measured of one benchmark.
func (s *Set) Median(name, unit string) (Summary, bool) {
	return s.Each(func(l Lookup) (float64, bool) { return l(name, unit) })
}

// Medians looks medians up.
func (s *Set) Medians() Lookup {
	return func(name, unit string) (float64, bool) {
		m, ok := s.Median(name, unit)
		return m.Median, ok
	}
}

func summarize(values []float64) (Summary, bool) {
	if len(values) == 0 {
		return Summary{}, false
	}
	sample := benchmath.NewSample(values, &benchmath.DefaultThresholds)
	of := benchmath.AssumeNothing.Summary(sample, confidence)
	s := Summary{of.Center, of.Lo, of.Hi, sample.Values[0], len(values)}
	if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
		s.Lo, s.Hi = sample.Values[0], sample.Values[len(sample.Values)-1]
	}
	return s, true
}
