// Package gobench runs the Go benchmarks of a module in rounds: each round runs every
// benchmark once, in random order, so that changes of the machine
// affect all of them alike.
package gobench

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"
)

// A Suite has the benchmarks of a module, compiled.
type Suite struct {
	benchmarks []benchmark
}

// A benchmark is one function, which may have many results.
type benchmark struct {
	program, dir, name string
}

// Build compiles the tests of the packages into the directory out, and finds the
// benchmarks in them whose names match the regular expression only.
func Build(ctx context.Context, out, only string, packages ...string) (*Suite, error) {
	list := append([]string{"list", "-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}}{{end}}"}, packages...)
	text, err := output(exec.CommandContext(ctx, "go", list...))
	if err != nil {
		return nil, err
	}
	s := &Suite{}
	for line := range strings.Lines(text) {
		path, dir, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		program := filepath.Join(out, strings.ReplaceAll(path, "/", "-")+".test")
		if err := s.add(ctx, program, path, dir, only); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Suite) add(ctx context.Context, program, path, dir, only string) error {
	if _, err := output(exec.CommandContext(ctx, "go", "test", "-c", "-o", program, path)); err != nil {
		return err
	}
	list := exec.CommandContext(ctx, program, "-test.list=^Benchmark.*"+only)
	list.Dir = dir
	text, err := output(list)
	if err != nil {
		return err
	}
	for name := range strings.Lines(text) {
		s.benchmarks = append(s.benchmarks, benchmark{program, dir, strings.TrimSpace(name)})
	}
	return nil
}

// Split returns the benchmarks whose names begin with prefix, and the others.
func (s *Suite) Split(prefix string) (with, others *Suite) {
	with, others = &Suite{}, &Suite{}
	for _, b := range s.benchmarks {
		if strings.HasPrefix(b.name, prefix) {
			with.benchmarks = append(with.benchmarks, b)
		} else {
			others.benchmarks = append(others.benchmarks, b)
		}
	}
	return with, others
}

// Round runs every benchmark once, each result for about the given time, and calls emit
// with the results.
func (s *Suite) Round(ctx context.Context, each time.Duration, emit func(*benchfmt.Result) error) error {
	for _, i := range rand.Perm(len(s.benchmarks)) {
		if err := s.benchmarks[i].run(ctx, each, emit); err != nil {
			return err
		}
	}
	return nil
}

func (b benchmark) run(ctx context.Context, each time.Duration, emit func(*benchfmt.Result) error) error {
	run := exec.CommandContext(ctx, b.program,
		"-test.run=^$", "-test.bench=^"+b.name+"$", "-test.benchmem", "-test.count=1", "-test.benchtime="+each.String())
	run.Dir = b.dir
	text, err := output(run)
	if err != nil {
		return fmt.Errorf("%s: %w", b.name, err)
	}
	for reader := benchfmt.NewReader(strings.NewReader(text), b.name); reader.Scan(); {
		if result, ok := reader.Result().(*benchfmt.Result); ok {
			if err := emit(result); err != nil {
				return err
			}
		}
	}
	return nil
}

// output runs a command and returns what it prints. A command that fails prints the
// reason on one of its outputs.
func output(c *exec.Cmd) (string, error) {
	var out, complaints bytes.Buffer
	c.Stdout, c.Stderr = &out, &complaints
	if err := c.Run(); err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w", filepath.Base(c.Path), err), errors.New(strings.TrimSpace(out.String()+complaints.String())))
	}
	return out.String(), nil
}

// Modules returns the versions of the modules that the benchmarks are linked with.
func (s *Suite) Modules() (map[string]string, error) {
	versions := make(map[string]string)
	for _, b := range s.benchmarks {
		info, err := buildinfo.ReadFile(b.program)
		if err != nil {
			return nil, err
		}
		for _, m := range info.Deps {
			versions[m.Path] = m.Version
		}
	}
	return versions, nil
}
