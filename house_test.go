package usher_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
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
