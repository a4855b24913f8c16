// Package contest is the table of what is measured: the works, the contestants of
// each work, and the targets of usher against its rivals. The benchmarks run what it
// lists, and the report compares the results with its targets.
//
// The result of a contestant has the name of its benchmark:
//
//	Benchmark<Layer>/<Work>/<Contestant>
package contest

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Usher is the contestant that the targets bind.
const Usher = "usher"

// A Row is one work and its contestants.
type Row struct {
	// Layer is the name of the benchmark, without "Benchmark".
	Layer string
	// Work is the name of the work within the layer.
	Work string
	// About describes the work, for a report.
	About string
	// Contestants are in the order of a report.
	Contestants []Contestant
	// Missing are those that belong here and could not be measured.
	Missing []Missing
	// Speeds are bounds for the time of one operation, and Allocs for the
	// allocations of one.
	Speeds []Speed
	Allocs []Allocs
}

// Name returns the name of the benchmark of a contestant of r.
func (r Row) Name(contestant string) string {
	return "Benchmark" + r.Layer + "/" + r.Work + "/" + contestant
}

// A Contestant is a program that does the work of a row.
type Contestant struct {
	// Name is the last part of the name of the benchmark.
	Name string
	// Base is another contestant of the row that does all but the part in
	// question: a router that calls the same handler, for instance. Its figures are
	// subtracted wherever the contestant is compared. Empty means none.
	Base string
	// Module is the module that is measured, for a table of versions. It is empty
	// for code written by hand or of the standard library.
	Module string
	// LeavesOut lists what the contestant does not do and others of the row do.
	LeavesOut string
	// Floor marks one that does only a part of the work: it shows what the work
	// costs at least and is no rival.
	Floor bool
}

// Missing is a contestant that belongs in a row and could not be measured.
type Missing struct{ Name, Why string }

// A Speed bounds the time of a contestant: it is met if
//
//	time(Of) <= Ratio * min(time(Against)...) + Plus
//
// where the base of each is subtracted from its time.
type Speed struct {
	// Of is the contestant that it binds; empty means [Usher].
	Of string
	// Against are the rivals, of which the quickest counts: contestants of the row,
	// or layer/work/contestant of another row.
	Against []string
	// Ratio is the bound.
	Ratio float64
	// Plus is added to the bound.
	Plus time.Duration
	// StandsFor names the rivals of the target that could not be measured and that
	// Against replaces, or explains why the target differs from the plain comparison.
	StandsFor string
}

// Allocs bounds the allocations of a contestant beyond those of its base.
type Allocs struct {
	// Of is the contestant that it binds; empty means [Usher].
	Of string
	// Most is the bound.
	Most int
	// Guard marks a bound that is no target but the present result, so that a test
	// fails when it gets worse. A row whose target is missed has both, and the guard
	// is the greater one.
	Guard bool
}

// Find returns the row of a layer and work.
func Find(layer, work string) (Row, bool) {
	i := slices.IndexFunc(rows, func(r Row) bool { return r.Layer == layer && r.Work == work })
	if i < 0 {
		return Row{}, false
	}
	return rows[i], true
}

// Rows returns the table in the order of a report.
func Rows() []Row { return slices.Clone(rows) }

// Layers returns the layers in the order of a report.
func Layers() []string {
	var layers []string
	for _, r := range rows {
		if !slices.Contains(layers, r.Layer) {
			layers = append(layers, r.Layer)
		}
	}
	return layers
}

// A Figure returns what was measured for the benchmark of this name: nanoseconds
// or allocations of one operation, as medians for instance.
type Figure func(benchmark string) (value float64, ok bool)

// Net returns the figure of a contestant of r without that of its base. The
// contestant may also be layer/work/contestant of another row. It reports false if
// there is no such figure.
func (r Row) Net(contestant string, figure Figure) (float64, bool) {
	if layer, rest, ok := strings.Cut(contestant, "/"); ok {
		work, name, _ := strings.Cut(rest, "/")
		other, ok := Find(layer, work)
		if !ok {
			return 0, false
		}
		return other.Net(name, figure)
	}
	i := slices.IndexFunc(r.Contestants, func(c Contestant) bool { return c.Name == contestant })
	if i < 0 {
		return 0, false
	}
	value, ok := figure(r.Name(contestant))
	if !ok || r.Contestants[i].Base == "" {
		return value, ok
	}
	base, ok := figure(r.Name(r.Contestants[i].Base))
	return value - base, ok
}

// A Verdict is how a target was met.
type Verdict struct {
	// Met reports whether it was met.
	Met bool
	// Measured is the time of the contestant and Best that of its quickest rival, in
	// nanoseconds, both without their bases.
	Measured, Best float64
	// Rival is the name of the quickest rival.
	Rival string
	// Ratio is (Measured - Plus) / Best.
	Ratio float64
}

// Compare applies s to the times of the row. It reports false if one of them is
// missing, or if the best takes no longer than its base, so that there is no
// ratio.
func (s Speed) Compare(r Row, nanoseconds Figure) (Verdict, bool) {
	var v Verdict
	var ok bool
	if v.Measured, ok = r.Net(s.Contestant(), nanoseconds); !ok {
		return v, false
	}
	for _, name := range s.Against {
		t, ok := r.Net(name, nanoseconds)
		if !ok {
			return v, false
		}
		if v.Rival == "" || t < v.Best {
			v.Rival, v.Best = name, t
		}
	}
	if v.Best <= 0 {
		return v, false
	}
	v.Ratio = (v.Measured - float64(s.Plus.Nanoseconds())) / v.Best
	v.Met = v.Ratio <= s.Ratio
	return v, true
}

// Guarded returns the bounds that a test asserts: the guards, and the targets of
// contestants without one.
func (r Row) Guarded() []Allocs {
	bounds := make(map[string]Allocs)
	for _, a := range r.Allocs {
		if have, ok := bounds[a.Contestant()]; !ok || a.Guard && !have.Guard {
			bounds[a.Contestant()] = a
		}
	}
	return slices.Collect(maps.Values(bounds))
}

// Contestant returns the contestant that s binds.
func (s Speed) Contestant() string { return orUsher(s.Of) }

// Contestant returns the contestant that a binds.
func (a Allocs) Contestant() string { return orUsher(a.Of) }

func orUsher(name string) string {
	if name == "" {
		return Usher
	}
	return name
}
