package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/compare"
	"github.com/usher-go/usher/internal/telemetry"
)

// root is the directory of the root module.
const root = "../../.."

func TestTheDocumentsAreThoseOfTheCode(t *testing.T) {
	for name, content := range documents {
		want, err := content()
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := compare.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
			t.Errorf("docs/%s is not what the code declares: run go run ./tests/telemetry/documents in the root\n%.2000s", name, diff)
		}
	}
}

// TestEachInstrumentHasASection finds what is declared and not documented. That all
// packages which declare anything are imported is for TestEveryPackageIsImported.
func TestEachInstrumentHasASection(t *testing.T) {
	sections := names()
	for _, i := range telemetry.Instruments() {
		if n := sections[i.Name]; n != 1 {
			t.Errorf("%s is in %d sections, want 1", i.Name, n)
		}
		delete(sections, i.Name)
		if i.Description == "" {
			t.Errorf("%s has no description", i.Name)
		}
		for _, a := range i.Attributes {
			for _, v := range a.Values {
				if v.Meaning() == "" {
					t.Errorf("%s: the value %s of %s has no meaning", i.Name, v.Name(), a.Name)
				}
			}
		}
	}
	for name := range sections {
		t.Errorf("no package declares %s", name)
	}
}

// names returns in how many sections each instrument is.
func names() map[string]int {
	n := make(map[string]int)
	for _, s := range sections {
		for _, q := range s.questions {
			n[q.instrument]++
		}
	}
	return n
}

// queries returns all queries of the rules and the dashboard, by where they are.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, r := range recordings {
		all[r.Name] = r.Query
	}
	for _, a := range alerts {
		all[a.Name] = a.Query
	}
	text, err := dashboard()
	if err != nil {
		t.Fatal(err)
	}
	var d dashboardModel
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all[fmt.Sprintf("panel %d %q, query %s", p.ID, p.Title, target.RefID)] = target.Expr
		}
	}
	return all
}

var (
	// selector is a metric of this module with the matchers of its labels.
	selector = regexp.MustCompile(`(?:^|[^:\w])(usher_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
	grouping = regexp.MustCompile(`by \(([^)]*)\)`)
)

// TestQueriesNameWhatIsDeclared checks each metric, label and value of each query.
func TestQueriesNameWhatIsDeclared(t *testing.T) {
	metrics := make(map[string]*telemetry.Instrument)
	known := map[string]bool{"job": true, "instance": true, "le": true, "error_type": true}
	for _, i := range telemetry.Instruments() {
		name := metricName(i)
		suffixes := []string{""}
		if i.Kind == telemetry.Histogram {
			suffixes = []string{"_bucket", "_count", "_sum"}
		}
		for _, suffix := range suffixes {
			metrics[name+suffix] = i
		}
		for _, a := range i.Attributes {
			known[label(a)] = true
		}
	}
	for where, query := range queries(t) {
		for _, by := range grouping.FindAllStringSubmatch(query, -1) {
			query = strings.ReplaceAll(query, by[0], "")
			for name := range strings.SplitSeq(by[1], ", ") {
				if !known[name] {
					t.Errorf("%s: there is no label %s", where, name)
				}
			}
		}
		found := selector.FindAllStringSubmatch(query, -1)
		if len(found) == 0 && !recorded(query) {
			t.Errorf("%s has no metric of this module: %s", where, query)
		}
		for _, m := range found {
			i := metrics[m[1]]
			if i == nil {
				t.Errorf("%s: there is no metric %s", where, m[1])
				continue
			}
			for _, match := range matcher.FindAllStringSubmatch(m[2], -1) {
				checkMatcher(t, where, i, match[1], match[3])
			}
		}
	}
}

// recorded reports whether query uses the results of a recording.
func recorded(query string) bool {
	return slices.ContainsFunc(recordings, func(r recording) bool { return strings.Contains(query, r.Name) })
}

// TestSummariesUseLabelsOfTheirQuery finds labels for which Prometheus would print nothing.
func TestSummariesUseLabelsOfTheirQuery(t *testing.T) {
	used := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, a := range alerts {
		query := a.Query
		for _, r := range recordings {
			query = strings.ReplaceAll(query, r.Name, r.Query)
		}
		by := grouping.FindStringSubmatch(query)
		for _, m := range used.FindAllStringSubmatch(a.Summary, -1) {
			if by == nil || !slices.Contains(strings.Split(by[1], ", "), m[1]) {
				t.Errorf("%s has no label %s", a.Name, m[1])
			}
		}
	}
}

// checkMatcher checks that a label of i may have the values in a matcher.
func checkMatcher(t *testing.T, where string, i *telemetry.Instrument, name, values string) {
	t.Helper()
	if name == "job" || name == "instance" {
		return
	}
	n := slices.IndexFunc(i.Attributes, func(a *telemetry.Attribute) bool { return label(a) == name })
	if n < 0 {
		t.Errorf("%s: %s has no label %s", where, i.Name, name)
		return
	}
	for value := range strings.SplitSeq(values, "|") {
		if value == "" { // as if there were no such label
			continue
		}
		if !slices.ContainsFunc(i.Attributes[n].Values, func(v telemetry.Value) bool { return v.Name() == value }) {
			t.Errorf("%s: %s of %s is never %s", where, name, i.Name, value)
		}
	}
}

// TestEachMessageOfTheLogIsOnThePage finds the messages and the sources in the code.
func TestEachMessageOfTheLogIsOnThePage(t *testing.T) {
	found := make(map[string]bool)
	reporters := make(map[string]bool)
	packages := make(map[string]bool)
	sourceFiles(t, func(path string, file *ast.File) {
		for _, spec := range file.Imports {
			if spec.Path.Value == `"github.com/usher-go/usher/internal/telemetry"` {
				packages[filepath.ToSlash(filepath.Dir(path))] = true
			}
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if kv, ok := node.(*ast.KeyValueExpr); ok && fmt.Sprint(kv.Key) == "source" {
				if text, ok := literal(kv.Value); ok {
					reporters[text] = true
				}
			}
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			called, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			switch on := fmt.Sprint(called.X); {
			case on == "report" && called.Sel.Name == "New":
				if text, ok := literal(call.Args[0]); ok {
					reporters[text] = true
				}
			case called.Sel.Name == "LogAttrs" && len(call.Args) > 2:
				if text, ok := literal(call.Args[2]); ok {
					found[text] = true
				}
			case on == "slog" && slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, called.Sel.Name):
				text, _ := literal(call.Args[0])
				found[text] = true
			}
			return true
		})
	})
	for _, l := range logs {
		if !found[l.Message] && !strings.HasPrefix(l.Message, "<source>") {
			t.Errorf("nothing logs %q", l.Message)
		}
		delete(found, l.Message)
	}
	for message := range found {
		t.Errorf("the page lacks the message %q", message)
	}
	for _, source := range sources {
		if !reporters[source] {
			t.Errorf("there is no source %s", source)
		}
		delete(reporters, source)
	}
	for source := range reporters {
		t.Errorf("the page lacks the source %s", source)
	}
}

// TestEveryPackageIsImported finds the packages whose instruments the documents would
// lack.
func TestEveryPackageIsImported(t *testing.T) {
	main, err := parser.ParseFile(token.NewFileSet(), "main.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	imported := make(map[string]bool)
	for _, spec := range main.Imports {
		imported[strings.Trim(spec.Path.Value, `"`)] = true
	}
	declares := regexp.MustCompile(`telemetry\.(Instrument|Attribute)\{`)
	n := 0
	sourceFiles(t, func(path string, _ *ast.File) {
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if !declares.Match(text) || strings.HasPrefix(dir, "internal/") || strings.HasPrefix(dir, "tests/") {
			return
		}
		n++
		name := "github.com/usher-go/usher"
		if dir != "." {
			name += "/" + dir
		}
		if !imported[name] {
			t.Errorf("main.go does not import %s", name)
		}
	})
	if n < 5 {
		t.Errorf("%d files declare instruments, want more", n)
	}
}

// sourceFiles calls f with each file of the root module that is not a test.
func sourceFiles(t *testing.T, f func(path string, file *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && name != "." || strings.HasPrefix(d.Name(), ".") && name != "." {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err == nil {
			f(name, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// literal returns the value of a string literal.
func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok {
		return "", false
	}
	text, err := strconv.Unquote(l.Value)
	return text, err == nil
}
