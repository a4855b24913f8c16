package composition_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestPage compares the page about routers with what the routers declare;
// USHER_UPDATE=1 writes it.
func TestPage(t *testing.T) {
	const page, begin, end = "../../docs/routers.md", "<!-- composition:begin -->\n", "<!-- composition:end -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var r reasons
	tables := table(&r, "net/http, chi and gorilla/mux", wrappers()) + table(&r, "net/http and gorilla/mux", elsewhere) +
		table(&r, "chi", ofChi) + table(&r, "gin", ginRouter.neighbours) +
		table(&r, "echo v5", echo5Router.neighbours) + table(&r, "echo v4", echo4Router.neighbours) + r.list()
	before, rest, ok := strings.Cut(string(text), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the tables", page)
	}
	if old == tables {
		return
	}
	if os.Getenv("USHER_UPDATE") != "1" {
		t.Fatalf("the tables of %s are not what the routers declare; USHER_UPDATE=1 go test -run TestPage writes them", page)
	}
	if err := os.WriteFile(page, []byte(before+begin+tables+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table returns a table of middlewares in Markdown, with its heading.
func table[M any](reasons *reasons, heading string, neighbours []neighbour[M]) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n| middleware | | outside | inside |\n|---|---|---|---|\n", heading)
	for _, n := range neighbours {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", n.name, n.kind, reasons.refer(n.outside), reasons.refer(n.inside))
	}
	return b.String() + "\n"
}

// reasons are those of all differences, each once.
type reasons []string

// refer returns the text of a cell, which refers to the reasons of its differences.
func (r *reasons) refer(differences []difference) string {
	if len(differences) == 0 {
		return "same"
	}
	var parts []string
	for _, d := range differences {
		i := slices.Index(*r, d.reason)
		if i < 0 {
			i = len(*r)
			*r = append(*r, d.reason)
		}
		what := d.what
		if what == "" {
			what = strings.Join(d.scenarios, ", ")
		}
		parts = append(parts, fmt.Sprintf("%s <sup>%d</sup>", what, i+1))
	}
	return strings.Join(parts, "; ")
}

func (r *reasons) list() string {
	var b strings.Builder
	for i, reason := range *r {
		fmt.Fprintf(&b, "%d. %s\n", i+1, reason)
	}
	return b.String()
}
