package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/perf/benchfmt"

	"github.com/usher-go/usher/benchmarks/internal/results"
)

func TestReportOnlyMeasuresNothing(t *testing.T) {
	stored, err := os.ReadFile("../../internal/report/testdata/results.txt")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "results.txt"), stored, 0o644); err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	if err := run(t.Context(), []string{"-report-only", "-dir", dir}, &printed); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(printed.String(), "API key/good") {
		t.Errorf("no verdict: %s", &printed)
	}
	after, err := os.ReadFile(filepath.Join(dir, "results.txt"))
	if err != nil || !bytes.Equal(after, stored) {
		t.Errorf("the stored results have changed (%v)", err)
	}
	for _, name := range []string{"README.md", "overhead-dark.svg"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("no %s: %v", name, err)
		}
	}
}

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		arguments string
		want      options
	}{
		"nothing is all, into the repository": {"", whole},
		"another directory leaves the README alone": {"-dir x -rounds 3", func() options {
			o := whole
			o.dir, o.readme, o.rounds = "x", "", 3
			return o
		}()},
		"quick never writes into the repository": {"-quick -dir x -benchtime 1ms", func() options {
			o := quick
			o.dir, o.benchtime = "x", time.Millisecond
			return o
		}()},
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := parse(strings.Fields(tt.arguments))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(options{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Setenv("TMPDIR", t.TempDir())
	if o, _, err := parse([]string{"-quick"}); err != nil || o.readme != "" || !strings.HasPrefix(o.dir, os.TempDir()) {
		t.Errorf("-quick writes to %q and %q (%v), want a temporary directory", o.dir, o.readme, err)
	}
}

// Stored results are read back unchanged, in rounds, with the name of the processor,
// which only package testing has.
func TestWriterStoresRounds(t *testing.T) {
	var stored bytes.Buffer
	w := &writer{to: benchfmt.NewWriter(&stored), config: []benchfmt.Config{line("go", "go1.26")}}
	for round, ns := range []string{"100", "300"} {
		w.round = round + 1
		for reader := benchfmt.NewReader(strings.NewReader("cpu: A\npkg: p\nBenchmarkX/y/usher-2 10 "+ns+" ns/op\n"), ""); reader.Scan(); {
			if err := w.write(reader.Result().(*benchfmt.Result)); err != nil {
				t.Fatal(err)
			}
		}
	}
	set, err := results.Read(&stored)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := set.Median("X/y/usher", "sec/op")
	if !ok || set.Rounds() != 2 || got.N != 2 || math.Round(got.Lo*1e9) != 100 || math.Round(got.Hi*1e9) != 300 {
		t.Errorf("%+v in %d rounds", got, set.Rounds())
	}
	if set.Config("cpu") != "A" || set.Config("go") != "go1.26" || set.Config("pkg") != "" {
		t.Errorf("cpu %q, go %q, pkg %q", set.Config("cpu"), set.Config("go"), set.Config("pkg"))
	}
}
