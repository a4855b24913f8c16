// Package results reads measurements in the format of Go benchmarks, in rounds, and
// summarizes them by golang.org/x/perf/benchmath: medians with the bounds of their 95 %
// confidence interval, and ratios likewise.
package results

import (
	"fmt"
	"io"
	"maps"
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

// A Summary is a median with the bounds of its confidence interval. With fewer than six
// rounds there is no such interval, and the bounds are the least and the greatest value.
type Summary struct {
	Median, Lo, Hi float64
	N              int
}

// Median summarizes what was measured, and reports false if nothing was.
func (s *Set) Median(name, unit string) (Summary, bool) {
	return summarize(slices.Collect(maps.Values(s.values[series{name, unit}])))
}

// Ratio summarizes how many times the value of base that of name is. It compares
// within each round, in which both ran shortly after each other on the same machine,
// so what disturbs a whole round disturbs no ratio.
func (s *Set) Ratio(name, base, unit string) (Summary, bool) {
	return s.combine(func(v []float64) float64 { return v[0] / v[1] }, unit, name, base)
}

// Overhead summarizes how many times what base adds to floor name adds to it.
func (s *Set) Overhead(name, base, floor, unit string) (Summary, bool) {
	return s.combine(func(v []float64) float64 { return (v[0] - v[2]) / (v[1] - v[2]) }, unit, name, base, floor)
}

// combine summarizes what of makes of the values of the names in each round that has
// all of them.
func (s *Set) combine(of func(values []float64) float64, unit string, names ...string) (Summary, bool) {
	var combined []float64
	for round := range s.rounds {
		values := make([]float64, len(names))
		complete := true
		for i, name := range names {
			v, ok := s.values[series{name, unit}][round]
			values[i], complete = v, complete && ok
		}
		if v := of(values); complete && !math.IsNaN(v) && !math.IsInf(v, 0) {
			combined = append(combined, v)
		}
	}
	return summarize(combined)
}

func summarize(values []float64) (Summary, bool) {
	if len(values) == 0 {
		return Summary{}, false
	}
	sample := benchmath.NewSample(values, &benchmath.DefaultThresholds)
	of := benchmath.AssumeNothing.Summary(sample, confidence)
	s := Summary{of.Center, of.Lo, of.Hi, len(values)}
	if math.IsInf(s.Lo, 0) || math.IsInf(s.Hi, 0) {
		s.Lo, s.Hi = sample.Values[0], sample.Values[len(sample.Values)-1]
	}
	return s, true
}
