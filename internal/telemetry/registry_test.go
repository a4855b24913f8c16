package telemetry_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-go/usher/internal/telemetry"

	// Everything in the module that declares an instrument.
	_ "github.com/usher-go/usher"
	_ "github.com/usher-go/usher/apikey"
	_ "github.com/usher-go/usher/envelope"
	_ "github.com/usher-go/usher/idempotency"
	_ "github.com/usher-go/usher/jwtauth"
	_ "github.com/usher-go/usher/jwtauth/session"
	_ "github.com/usher-go/usher/ratelimit"
)

// Names and units follow the guidelines of the semantic conventions.
func TestDeclarationsFollowTheConventions(t *testing.T) {
	var (
		name     = regexp.MustCompile(`^usher(\.[a-z][a-z0-9_]*)+$`)
		value    = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
		count    = regexp.MustCompile(`^\{[a-z]+\}$`)
		standard = []string{"error.type", "user.id"} // names of the semantic conventions
		seen     = make(map[string]bool)
	)
	sentence := func(of, text string) {
		if !strings.HasSuffix(text, ".") || strings.HasPrefix(text, " ") {
			t.Errorf("%s: %q is no sentence", of, text)
		}
	}
	for _, i := range telemetry.Instruments() {
		if !name.MatchString(i.Name) || seen[i.Name] {
			t.Errorf("the instrument %s has no name of its own in the namespace of usher", i.Name)
		}
		seen[i.Name] = true
		sentence(i.Name, i.Description)
		if seconds := i.Unit == "s"; seconds != (i.Kind == telemetry.Histogram) || !seconds && !count.MatchString(i.Unit) {
			t.Errorf("%s, a %s, has the unit %q", i.Name, i.Kind, i.Unit)
		}
		if (i.Kind == telemetry.Histogram) != (len(i.Buckets) > 0) || !slices.IsSorted(i.Buckets) {
			t.Errorf("%s, a %s, has the buckets %v", i.Name, i.Kind, i.Buckets)
		}
		if !strings.HasPrefix(i.Scope, "github.com/usher-go/usher") {
			t.Errorf("%s has the scope %s", i.Name, i.Scope)
		}
		for _, a := range i.Attributes {
			if !slices.Contains(telemetry.Attributes(), a) {
				t.Errorf("%s: the attribute %s is not declared", i.Name, a.Name)
			}
		}
	}
	for _, a := range telemetry.Attributes() {
		if !name.MatchString(a.Name) && !slices.Contains(standard, a.Name) {
			t.Errorf("the attribute %s has no name in the namespace of usher", a.Name)
		}
		// Standard attributes have other values on spans than on metrics.
		key := a.Name
		if slices.Contains(standard, a.Name) && a.Span {
			key += " of spans"
		}
		if seen[key] {
			t.Errorf("the attribute %s is declared twice", a.Name)
		}
		seen[key] = true
		sentence(a.Name, a.Description)
		values := make(map[string]bool)
		for _, v := range a.Values {
			if !value.MatchString(v.Name()) && v.Name() != telemetry.Other || values[v.Name()] {
				t.Errorf("%s has the value %q", a.Name, v.Name())
			}
			values[v.Name()] = true
			sentence(a.Name+" "+v.Name(), v.Meaning())
		}
	}
}

// Nothing is measured or noted on spans that is not declared, or the documents that are
// generated from the declarations would lack it. So no other package makes instruments or
// attributes, and declarations are variables of packages.
func TestNothingIsMeasuredThatIsNotDeclared(t *testing.T) {
	const here = "internal/telemetry"
	root := filepath.Join("..", "..")
	makers := regexp.MustCompile(`^(Int64|Float64)(Observable)?(Counter|UpDownCounter|Histogram|Gauge)$`)
	declared := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		switch rel = filepath.ToSlash(rel); {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{"benchmarks", "examples", "peers", "tests", "internal/oteltest"}, rel):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		inside := filepath.ToSlash(filepath.Dir(rel)) == here
		for _, i := range file.Imports {
			if p, _ := strconv.Unquote(i.Path.Value); p == "go.opentelemetry.io/otel/attribute" && !inside {
				t.Errorf("%s makes attributes past package telemetry", rel)
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				ast.Inspect(n, func(n ast.Node) bool {
					if s, ok := n.(*ast.SelectorExpr); ok && isDeclaration(s) {
						t.Errorf("%s: a declaration in a function", files.Position(s.Pos()))
					}
					return true
				})
			case *ast.SelectorExpr:
				if isDeclaration(n) {
					declared++
				}
				if makers.MatchString(n.Sel.Name) && !isType(n) && !inside {
					t.Errorf("%s: %s makes an instrument past package telemetry", files.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(telemetry.Instruments()) + len(telemetry.Attributes()); declared != n {
		t.Errorf("the module has %d declarations, and the packages that this file imports %d", declared, n)
	}
}

// isDeclaration reports whether s is the method of a literal of package telemetry.
func isDeclaration(s *ast.SelectorExpr) bool {
	_, literal := s.X.(*ast.CompositeLit)
	return literal && s.Sel.Name == "Declare"
}

// isType reports whether s is the type of an instrument.
func isType(s *ast.SelectorExpr) bool {
	pkg, ok := s.X.(*ast.Ident)
	return ok && pkg.Name == "metric"
}
