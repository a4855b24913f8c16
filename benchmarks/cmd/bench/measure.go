package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"

	"github.com/usher-go/usher/benchmarks/internal/gobench"
	"github.com/usher-go/usher/benchmarks/internal/loopback"
)

// measure runs all rounds and stores the results. If it fails or is interrupted, the
// results that were stored before stay.
func measure(ctx context.Context, o options, stored string) (err error) {
	programs, err := os.MkdirTemp("", "usher-bench-programs-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(programs)) }()
	log.Print("building")
	suite, err := gobench.Build(ctx, programs, o.only, ".")
	if err != nil {
		return err
	}
	server := filepath.Join(programs, "server")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", server, "./cmd/server").CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	plan := loopback.Plan{
		Program: server, Procs: []int{1, 2}, Connections: 8,
		Warm: 100 * time.Millisecond, Closed: o.closed, Open: o.open, Rate: o.rate,
	}
	config, err := describe(ctx, o, suite, plan)
	if err != nil {
		return err
	}

	partial := stored + ".partial"
	file, err := os.Create(partial)
	if err != nil {
		return err
	}
	w := &writer{to: benchfmt.NewWriter(file), config: config}
	err = rounds(ctx, o, suite, plan, w)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return os.Rename(partial, stored)
}

// rounds measures in rounds. Only the first few measure how costs grow, as that takes
// long.
func rounds(ctx context.Context, o options, suite *gobench.Suite, plan loopback.Plan, w *writer) error {
	start := time.Now()
	scales, layers := suite.Split("BenchmarkScale")
	for round := 1; round <= o.rounds; round++ {
		w.round = round
		if err := layers.Round(ctx, o.benchtime, w.write); err != nil {
			return err
		}
		if round <= o.scales {
			if err := scales.Round(ctx, o.benchtime, w.write); err != nil {
				return err
			}
		}
		log.Printf("round %d of %d: %d results of Go benchmarks", round, o.rounds, w.results)
		if o.only == "" {
			if err := plan.Round(ctx, w.write); err != nil {
				return err
			}
		}
		passed := time.Since(start)
		left := passed / time.Duration(round) * time.Duration(o.rounds-round)
		log.Printf("round %d of %d: %d results, %v left", round, o.rounds, w.results, left.Round(time.Second))
	}
	return nil
}

// A writer stores results, each with the same description and the number of its round.
type writer struct {
	to      *benchfmt.Writer
	config  []benchfmt.Config
	round   int
	results int
}

func (w *writer) write(r *benchfmt.Result) error {
	// Only package testing has the name of the processor.
	if cpu := r.GetConfig("cpu"); cpu != "" && w.results == 0 {
		w.config = append(w.config, line("cpu", cpu))
	}
	w.results++
	return w.to.Write(&benchfmt.Result{
		Config: append(slices.Clone(w.config), line("round", strconv.Itoa(w.round))),
		Name:   r.Name, Iters: r.Iters, Values: r.Values,
	})
}

func line(key, value string) benchfmt.Config {
	return benchfmt.Config{Key: key, Value: []byte(value), File: true}
}

// describe describes what is measured, by what, and where.
func describe(ctx context.Context, o options, suite *gobench.Suite, plan loopback.Plan) ([]benchfmt.Config, error) {
	versions, err := suite.Modules()
	if err != nil {
		return nil, err
	}
	var modules []string
	for _, path := range slices.Sorted(maps.Keys(versions)) {
		modules = append(modules, path+"@"+versions[path])
	}
	return []benchfmt.Config{
		line("go", runtime.Version()),
		line("system", runtime.GOOS+"/"+runtime.GOARCH),
		line("cpus", strconv.Itoa(runtime.NumCPU())),
		line("date", time.Now().UTC().Format(time.DateOnly)),
		line("commit", commit(ctx)),
		line("benchtime", o.benchtime.String()),
		line("connections", strconv.Itoa(plan.Connections)),
		line("rate", strconv.FormatFloat(plan.Rate, 'g', -1, 64)),
		line("modules", strings.Join(modules, " ")),
	}, nil
}

// commit is the revision that is measured, or empty without git.
func commit(ctx context.Context) string {
	revision, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--untracked-files=no").Output()
	if err != nil || len(changes) > 0 {
		return strings.TrimSpace(string(revision)) + " with changes"
	}
	return strings.TrimSpace(string(revision))
}
