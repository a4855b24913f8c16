package loopback_test

import (
	"context"
	"errors"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/usher-go/usher/benchmarks/internal/loopback"
)

// build makes the server program.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "server")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/server").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

func TestRound(t *testing.T) {
	plan := loopback.Plan{
		Program: build(t), Procs: []int{1, 2}, Connections: 2,
		Warm: time.Millisecond, Closed: 10 * time.Millisecond, Open: 20 * time.Millisecond, Rate: 500,
	}
	got := map[string]*benchfmt.Result{}
	if err := plan.Round(t.Context(), func(r *benchfmt.Result) error {
		got[r.Name.String()] = r.Clone()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2*3*3*2 {
		t.Errorf("%d results, want each of 2 loops, 3 works, 3 stacks and 2 GOMAXPROCS: %v", len(got), slices.Sorted(maps.Keys(got)))
	}
	closed := got[loopback.Closed("post-key", 1, "usher")]
	open := got[loopback.Open("get-jwt", 2, "today")]
	if closed == nil || open == nil {
		t.Fatalf("results have other names: %v", slices.Sorted(maps.Keys(got)))
	}
	if open.Iters != 10 {
		t.Errorf("%d requests in 20 ms at 500 a second, want 10", open.Iters)
	}
	for unit, r := range map[string]*benchfmt.Result{
		"sec/op": closed, "req/s": closed, "cpu-sec/op": closed, "B/op": closed, "allocs/op": closed,
		"p50-sec": open, "p99.9-sec": open, "p100-sec": open,
	} {
		if v, ok := r.Value(unit); !ok || v <= 0 {
			t.Errorf("%s: %v %s", r.Name, v, unit)
		}
	}
}

func TestRoundEndsWithItsContext(t *testing.T) {
	plan := loopback.Plan{
		Program: build(t), Procs: []int{1}, Connections: 1,
		Warm: time.Millisecond, Closed: time.Hour, Open: time.Hour, Rate: 1,
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := plan.Round(ctx, func(*benchfmt.Result) error { return nil })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the end of the context", err)
	}
}

func TestRoundReportsAProgramThatDoesNotServe(t *testing.T) {
	plan := loopback.Plan{Program: "false", Procs: []int{1}, Connections: 1}
	if err := plan.Round(t.Context(), func(*benchfmt.Result) error { return nil }); err == nil {
		t.Error("no error")
	}
}
