package report_test

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/usher-go/usher/benchmarks/internal/contest"
	"github.com/usher-go/usher/benchmarks/internal/loopback"
	"github.com/usher-go/usher/benchmarks/internal/report"
	"github.com/usher-go/usher/benchmarks/internal/results"
)

var update = flag.Bool("update", false, "write the golden files")

// table is a small one, so that the golden files change with the report only.
var table = report.Table{
	Rows: []contest.Row{
		{
			Layer: "LimiterDecision", Work: "hot", About: "one decision",
			Contestants: []contest.Contestant{{Name: "usher"}},
			Missing:     []contest.Missing{{Name: "somebody", Why: "who could not be fetched"}},
			Allocs:      []contest.Allocs{{Most: 0}, {Most: 1, Guard: true}},
		},
		{
			Layer: "LimiterDecision", Work: "three-policies", About: "a decision over three policies",
			Contestants: []contest.Contestant{{Name: "usher"}},
		},
		{
			Layer: "APIKey", Work: "good", About: "a request with a good key passes",
			Contestants: []contest.Contestant{
				{Name: "bare", Floor: true, LeavesOut: "everything"},
				{Name: "echo-bare", Floor: true, LeavesOut: "everything but the router"},
				{Name: "usher", Base: "bare"},
				{Name: "by-hand", Base: "bare", LeavesOut: "expiry"},
				{Name: "by-hand-tight", Base: "bare", LeavesOut: "expiry"},
				{Name: "echo", Base: "echo-bare", Module: "github.com/labstack/echo/v5"},
			},
			Speeds: []contest.Speed{
				{Against: []string{"by-hand", "by-hand-tight"}, Ratio: 0.7},
				{Against: []string{"echo"}, Ratio: 0.5, Plus: 10 * time.Nanosecond, StandsFor: "another machine"},
				{Of: "by-hand", Against: []string{"by-hand-tight"}, Ratio: 1},
			},
			Allocs: []contest.Allocs{{Most: 1}},
		},
		{Layer: "APIKey", Work: "never", About: "what was not measured", Contestants: []contest.Contestant{{Name: "usher"}}},
	},
	Scales: []contest.Scale{
		{
			Layer: "ScaleMemory", About: "what a limiter holds", Axis: "keys", Points: []int{10_000, 100_000, 1_000_000},
			Contestants: []contest.Contestant{{Name: "usher"}, {Name: "httprate"}}, Unit: "held-B",
		},
		{
			Layer: "ScalePause", About: "the longest call", Axis: "keys", Points: []int{1_000_000},
			Contestants: []contest.Contestant{{Name: "usher"}}, Unit: "worst-ns",
		},
	},
	Shares: []loopback.Target{{Work: "get-key", Procs: 1, Share: 0.92}, {Work: "get-jwt", Procs: 1, Share: 0.9}},
}

func open(t *testing.T, path string, table report.Table) *report.Report {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	set, err := results.Read(file)
	if err != nil {
		t.Fatal(err)
	}
	return report.New(set, table)
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func TestReportOfStoredResults(t *testing.T) {
	r := open(t, "testdata/results.txt", table)
	for name, got := range map[string]string{
		"report.md": r.Markdown(), "figures.md": r.Figures(), "verdicts.txt": r.Verdicts(),
	} {
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(read(t, golden), got); diff != "" {
			t.Errorf("%s (-want +got; go test -update writes it):\n%s", name, diff)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	r := open(t, "testdata/results.txt", table)
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		written[e.Name()] = true
	}
	for _, chart := range []string{"overhead", "throughput", "latency", "scale-memory", "scale-pause"} {
		for _, page := range []string{"light", "dark"} {
			name := chart + "-" + page + ".svg"
			if !written[name] {
				t.Errorf("no %s in %q", name, slices.Sorted(maps.Keys(written)))
				continue
			}
			if svg := read(t, filepath.Join(dir, name)); !strings.Contains(svg, "usher") || !strings.Contains(r.Markdown(), name) {
				t.Errorf("%s does not show usher, or the report does not show it", name)
			}
		}
	}
}

func TestWriteFigures(t *testing.T) {
	r := open(t, "testdata/results.txt", table)
	readme := filepath.Join(t.TempDir(), "README.md")
	for name, tt := range map[string]struct{ before, after string }{
		"replaces what stands between the marks": {
			"a\n<!-- figures:begin -->\nold\n<!-- figures:end -->\nb\n",
			"a\n<!-- figures:begin -->\n" + r.Figures() + "<!-- figures:end -->\nb\n",
		},
		"changes nothing without marks":           {"a\n", "a\n"},
		"changes nothing if the end comes before": {"<!-- figures:end -->\n<!-- figures:begin -->\n", "<!-- figures:end -->\n<!-- figures:begin -->\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(readme, []byte(tt.before), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := r.WriteFigures(readme); (err != nil) != (tt.before == tt.after) {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(tt.after, read(t, readme)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
