package usher_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// sources calls f with every file of this module that is part of the library:
// neither a test nor a suite of tests, an example or a benchmark.
func sources(t *testing.T, f func(path string, file *ast.File, files *token.FileSet)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch name := d.Name(); {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(name, ".") || strings.HasSuffix(name, "test")),
			d.IsDir() && (path == "examples" || path == "benchmarks" || path == "peers" || path == "internal/faulty"):
			return filepath.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		f(path, file, files)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryCodeIsDeclaredInCodesGo(t *testing.T) {
	n := 0
	sources(t, func(path string, file *ast.File, files *token.FileSet) {
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.ValueSpec:
				for _, name := range node.Names {
					if path == "codes.go" {
						n++
					} else if strings.HasPrefix(name.Name, "Code") {
						t.Errorf("%s: %s is declared outside codes.go", files.Position(name.Pos()), name.Name)
					}
				}
			case *ast.KeyValueExpr:
				key, ok := node.Key.(*ast.Ident)
				value, literal := node.Value.(*ast.BasicLit)
				if ok && literal && key.Name == "Code" && value.Value != `""` {
					t.Errorf("%s: the code %s is a bare literal", files.Position(node.Pos()), value.Value)
				}
			}
			return true
		})
	})
	if n < 40 {
		t.Errorf("codes.go declares only %d codes", n)
	}
}

// exportedNames limits the number of exported names of each package; without an entry the
// limit is 40. Constants do not count: they are in documented groups.
var exportedNames = map[string]int{
	".":               48,
	"apikey":          48,
	"jwtauth":         32,
	"ratelimit":       48,
	"jwtauth/jwk":     20,
	"jwtauth/session": 20,
}

func TestPackagesAreSmall(t *testing.T) {
	names := make(map[string]int)
	sources(t, func(path string, file *ast.File, _ *token.FileSet) {
		dir := filepath.ToSlash(filepath.Dir(path))
		for _, decl := range file.Decls {
			names[dir] += exported(decl)
		}
	})
	for dir, n := range names {
		most, ok := exportedNames[dir]
		if !ok {
			most = 40
		}
		if n > most {
			t.Errorf("%s exports %d names, want at most %d", dir, n, most)
		}
	}
	if names["."] < 20 {
		t.Errorf("the root package exports only %d names", names["."])
	}
}

// Every request pays for a place that no slot takes, and a slot without a place panics.
func TestAnExchangeHasAPlaceForEachSlot(t *testing.T) {
	slots, places := 0, ""
	sources(t, func(_ string, file *ast.File, _ *token.FileSet) {
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.CallExpr:
				if f, ok := node.Fun.(*ast.IndexExpr); ok && called(f.X) == "NewSlot" {
					slots++
				}
			case *ast.ValueSpec:
				if file.Name.Name == "exchange" && node.Names[0].Name == "places" {
					places = node.Values[0].(*ast.BasicLit).Value
				}
			}
			return true
		})
	})
	if places != strconv.Itoa(slots) {
		t.Errorf("%d slots share %s places", slots, places)
	}
}

// called returns the name of a function without its package.
func called(f ast.Expr) string {
	switch f := f.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// exported returns how many exported types, functions and variables decl declares.
func exported(decl ast.Decl) (n int) {
	count := func(names ...*ast.Ident) {
		for _, name := range names {
			if name.IsExported() {
				n++
			}
		}
	}
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv == nil {
			count(decl.Name)
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				count(spec.Name)
			case *ast.ValueSpec:
				if decl.Tok == token.VAR {
					count(spec.Names...)
				}
			}
		}
	}
	return n
}

func TestExportedNamesAreCounted(t *testing.T) {
	const src = `package p
type T struct{ Field int }
type t int
func (T) Method() {}
func F() { var Local int; _ = Local }
func f() {}
var A, b, C = 1, 2, 3
const D = 4
`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, decl := range file.Decls {
		n += exported(decl)
	}
	if n != 4 { // T, F, A and C
		t.Errorf("%d exported names, want 4", n)
	}
}
