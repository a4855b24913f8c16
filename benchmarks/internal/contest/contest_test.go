package contest_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher/benchmarks/internal/contest"
)

// A target that names nobody would never be missed.
func TestTableRefersToItself(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range contest.Rows() {
		if seen[r.Layer+"/"+r.Work] {
			t.Errorf("%s/%s is there twice", r.Layer, r.Work)
		}
		seen[r.Layer+"/"+r.Work] = true
		if r.About == "" || strings.ContainsAny(r.Layer+r.Work, " /") {
			t.Errorf("%s/%s: no description, or a name that is none", r.Layer, r.Work)
		}
		names := make(map[string]bool)
		for _, c := range r.Contestants {
			if names[c.Name] || strings.ContainsAny(c.Name, " /") {
				t.Errorf("%s: bad or repeated name", r.Name(c.Name))
			}
			names[c.Name] = true
		}
		// A base costs nothing here.
		one := func(benchmark string) (float64, bool) {
			_, name, _ := strings.Cut(strings.TrimPrefix(benchmark, "Benchmark"+r.Layer+"/"), "/")
			return map[bool]float64{false: 1}[strings.HasSuffix(name, "bare")], true
		}
		for _, c := range r.Contestants {
			if c.Base != "" && (!names[c.Base] || c.Base == c.Name) {
				t.Errorf("%s: no base %q", r.Name(c.Name), c.Base)
			}
		}
		for _, s := range r.Speeds {
			if _, ok := s.Compare(r, one); !ok || len(s.Against) == 0 || s.Ratio <= 0 {
				t.Errorf("%s/%s: no target: %+v", r.Layer, r.Work, s)
			}
		}
		for _, a := range r.Allocs {
			if !names[a.Contestant()] || a.Most < 0 {
				t.Errorf("%s/%s: no target: %+v", r.Layer, r.Work, a)
			}
		}
	}
	if got := contest.Layers(); len(got) == 0 || !slices.Contains(got, "LimiterDecision") {
		t.Errorf("layers %v", got)
	}
}

func TestScalesReferToThemselves(t *testing.T) {
	for _, s := range contest.Scales() {
		if !strings.HasPrefix(s.Layer, "Scale") || s.About == "" || s.Axis == "" || s.Unit == "" || !slices.IsSorted(s.Points) {
			t.Errorf("%+v", s)
		}
		for _, c := range s.Contestants {
			if c.Base != "" && !slices.ContainsFunc(s.Contestants, func(o contest.Contestant) bool { return o.Name == c.Base }) {
				t.Errorf("%s: no base %q", s.Name(s.Points[0], c.Name), c.Base)
			}
		}
	}
}

func TestGuarded(t *testing.T) {
	row := contest.Row{Allocs: []contest.Allocs{{Most: 2}, {Most: 4, Guard: true}, {Of: "a", Most: 1}}}
	got := make(map[string]int)
	for _, a := range row.Guarded() {
		got[a.Contestant()] = a.Most
	}
	if len(got) != 2 || got[contest.Usher] != 4 || got["a"] != 1 {
		t.Errorf("guarded: %v", got)
	}
}

func TestCompare(t *testing.T) {
	row := contest.Row{Layer: "L", Work: "w", Contestants: []contest.Contestant{
		{Name: "bare"}, {Name: "usher", Base: "bare"}, {Name: "a", Base: "bare"}, {Name: "b"},
	}}
	times := map[string]float64{"bare": 100, "usher": 150, "a": 200, "b": 120}
	figure := func(name string) (float64, bool) {
		v, ok := times[strings.TrimPrefix(name, "BenchmarkL/w/")]
		return v, ok
	}
	for _, tt := range []struct {
		name  string
		speed contest.Speed
		rival string
		ratio float64
		met   bool
	}{
		{"the base is subtracted on both sides", contest.Speed{Against: []string{"a"}, Ratio: 0.5}, "a", 0.5, true},
		{"the quickest counts", contest.Speed{Against: []string{"b", "a"}, Ratio: 0.49}, "a", 0.5, false},
		{"a constant is allowed for", contest.Speed{Against: []string{"a"}, Ratio: 0.3, Plus: 20 * time.Nanosecond}, "a", 0.3, true},
		{"another contestant may be bound", contest.Speed{Of: "b", Against: []string{"a"}, Ratio: 1}, "a", 1.2, false},
	} {
		v, ok := tt.speed.Compare(row, figure)
		if !ok || v.Rival != tt.rival || v.Ratio != tt.ratio || v.Met != tt.met {
			t.Errorf("%s: %+v, %v", tt.name, v, ok)
		}
	}
	times["bare"] = 200
	if v, ok := (contest.Speed{Against: []string{"a"}, Ratio: 1}).Compare(row, figure); ok {
		t.Errorf("a verdict without a rival: %+v", v)
	}
	delete(times, "bare")
	if _, ok := (contest.Speed{Against: []string{"a"}, Ratio: 1}).Compare(row, figure); ok {
		t.Error("a verdict without a figure")
	}
}
