package gobench_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/usher-go/usher/benchmarks/internal/gobench"
)

func build(t *testing.T, only string) *gobench.Suite {
	t.Helper()
	s, err := gobench.Build(t.Context(), t.TempDir(), only, "./testdata/sample")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRoundRunsEachBenchmarkOnce(t *testing.T) {
	s := build(t, "(First|Second)")
	var got []string
	if err := s.Round(t.Context(), time.Millisecond, func(r *benchfmt.Result) error {
		name, _, _ := strings.Cut(r.Name.String(), "-")
		got = append(got, name)
		if keys, ok := r.Value("keys"); ok != strings.HasSuffix(name, "rival") || ok && keys != 7 {
			t.Errorf("%s: %v keys", name, keys)
		}
		if _, ok := r.Value("allocs/op"); !ok {
			t.Errorf("%s: no allocations", name)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if want := []string{"First/work/rival", "First/work/usher", "Second"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSplit(t *testing.T) {
	first, others := build(t, "(First|Second)").Split("BenchmarkFirst")
	for want, s := range map[int]*gobench.Suite{2: first, 1: others} {
		got := 0
		if err := s.Round(t.Context(), time.Millisecond, func(*benchfmt.Result) error { got++; return nil }); err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%d results, want %d", got, want)
		}
	}
}

func TestRoundReportsABenchmarkThatFails(t *testing.T) {
	err := build(t, "Wrong").Round(t.Context(), time.Millisecond, func(*benchfmt.Result) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "the response is wrong") {
		t.Errorf("%v, want what the benchmark said", err)
	}
}
