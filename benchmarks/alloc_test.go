package benchmarks_test

import (
	"testing"

	"github.com/usher-go/usher/benchmarks/internal/contest"
	"github.com/usher-go/usher/internal/race"
)

// TestAllocTargets asserts what the table says that a piece of work allocates
// beyond its base.
func TestAllocTargets(t *testing.T) {
	if race.Enabled {
		t.Skip("allocations are not exact under the race detector")
	}
	for _, row := range contest.Rows() {
		for _, bound := range row.Guarded() {
			t.Run(row.Layer+"/"+row.Work, func(t *testing.T) {
				got, ok := row.Net(bound.Contestant(), func(benchmark string) (float64, bool) {
					return allocations(t, row, benchmark[len(row.Name("")):]), true
				})
				if !ok {
					t.Fatalf("no %s", bound.Contestant())
				}
				for _, a := range row.Allocs {
					if !a.Guard && a.Contestant() == bound.Contestant() && got > float64(a.Most) {
						t.Logf("%v allocations, the target is %d", got, a.Most)
					}
				}
				if got > float64(bound.Most) {
					t.Errorf("%s: %v allocations, want at most %d", bound.Contestant(), got, bound.Most)
				} else if bound.Guard && got < float64(bound.Most) {
					t.Logf("%v allocations, less than the guard of %d", got, bound.Most)
				}
			})
		}
	}
}

func allocations(t *testing.T, row contest.Row, name string) float64 {
	s := ready(t, row, name)
	// What grows now and then is not what each one costs.
	return testing.AllocsPerRun(2000, s.run)
}
