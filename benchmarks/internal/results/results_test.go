package results_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/usher-go/usher/benchmarks/internal/results"
)

// The second round ran on a machine that was busy with something else.
const stored = `cpu: a machine
round: 1
BenchmarkLimiter/hot/usher-2 1000 100 ns/op 0 allocs/op
BenchmarkLimiter/hot/httprate-2 1000 400 ns/op 3 allocs/op
BenchmarkLimiter/hot/bare-2 1000 20 ns/op
round: 2
BenchmarkLimiter/hot/httprate-2 1000 4000 ns/op 3 allocs/op
BenchmarkLimiter/hot/usher-2 1000 1000 ns/op 0 allocs/op
BenchmarkLimiter/hot/bare-2 1000 200 ns/op
round: 3
BenchmarkLimiter/hot/usher-2 1000 110 ns/op 0 allocs/op
BenchmarkLimiter/hot/httprate-2 1000 400 ns/op 3 allocs/op
BenchmarkLimiter/hot/bare-2 1000 20 ns/op
round: 4
BenchmarkLimiter/hot/usher-2 1000 90 ns/op 0 allocs/op
`

func read(t *testing.T, text string) *results.Set {
	t.Helper()
	s, err := results.Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSummaries(t *testing.T) {
	s := read(t, stored)
	summary := func(got results.Summary, ok bool) results.Summary {
		if !ok {
			t.Error("nothing measured")
		}
		return got
	}
	// In nanoseconds, as the format has it.
	scaled := func(got results.Summary, ok bool) results.Summary {
		got = summary(got, ok)
		return results.Summary{Median: got.Median * 1e9, Lo: got.Lo * 1e9, Hi: got.Hi * 1e9, N: got.N}
	}
	const usher, rival, floor = "Limiter/hot/usher", "Limiter/hot/httprate", "Limiter/hot/bare"
	ratio := func(l results.Lookup) (float64, bool) {
		a, _ := l(usher, "sec/op")
		b, ok := l(rival, "sec/op")
		return a / b, ok
	}
	overhead := func(l results.Lookup) (float64, bool) {
		a, _ := l(usher, "sec/op")
		b, ok := l(rival, "sec/op")
		c, _ := l(floor, "sec/op")
		return (a - c) / (b - c), ok
	}
	for name, tt := range map[string]struct{ got, want results.Summary }{
		"median of all rounds":                   {scaled(s.Median(usher, "sec/op")), results.Summary{Median: 105, Lo: 90, Hi: 1000, N: 4}},
		"ratio within each round that has both":  {summary(s.Each(ratio)), results.Summary{Median: 0.25, Lo: 0.25, Hi: 0.275, N: 3}},
		"ratio of what is added":                 {summary(s.Each(overhead)), results.Summary{Median: 80. / 380, Lo: 80. / 380, Hi: 90. / 380, N: 3}},
		"allocations, which are none every time": {summary(s.Median(usher, "allocs/op")), results.Summary{N: 4}},
	} {
		t.Run(name, func(t *testing.T) {
			near := func(a, b float64) bool { return a-b < 1e-9 && b-a < 1e-9 }
			if !near(tt.got.Median, tt.want.Median) || !near(tt.got.Lo, tt.want.Lo) || !near(tt.got.Hi, tt.want.Hi) || tt.got.N != tt.want.N {
				t.Errorf("%+v, want %+v", tt.got, tt.want)
			}
		})
	}
	if _, ok := s.Median("Limiter/hot/tollbooth", "sec/op"); ok {
		t.Error("a median of what was not measured")
	}
	if v, ok := s.Medians()(rival, "allocs/op"); !ok || v != 3 {
		t.Errorf("median %v, %v, want 3", v, ok)
	}
	if s.Rounds() != 4 || s.Config("cpu") != "a machine" {
		t.Errorf("%d rounds on %q", s.Rounds(), s.Config("cpu"))
	}
	if want := []string{"Limiter/hot/usher", "Limiter/hot/httprate", "Limiter/hot/bare"}; !slices.Equal(s.Names(), want) {
		t.Errorf("names %q, want %q", s.Names(), want)
	}
}

// From six rounds on the bounds leave out what is too rare to matter.
func TestConfidence(t *testing.T) {
	var text strings.Builder
	for i, ns := range []string{"100", "101", "102", "103", "104", "105", "106", "107", "900"} {
		text.WriteString("round: " + string(rune('1'+i)) + "\nBenchmarkA/b/c 1 " + ns + " ns/op\n")
	}
	got, _ := read(t, text.String()).Median("A/b/c", "sec/op")
	if ns := got.Hi * 1e9; got.N != 9 || ns < 106 || ns > 108 {
		t.Errorf("%+v: the bounds reach up to the outlier", got)
	}
}

func TestReadRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"a result without a round": "BenchmarkA/b/c 1 100 ns/op\n",
		"a line that is no result": "round: 1\nBenchmarkA/b/c 1 100\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := results.Read(strings.NewReader(text)); err == nil {
				t.Error("no error")
			}
		})
	}
}
