package usher_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Handlers and users must not be able to call what the response writer calls: no
// exported type has a method of httpwriter.Hook.
func TestNoExportedTypeIsAHookOfTheResponseWriter(t *testing.T) {
	hook := map[string]bool{"Head": true, "Body": true, "Release": true}
	files, unexported := 0, 0
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "internal" || d.Name() == "peers" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return fs.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv == nil || !hook[f.Name.Name] {
				continue
			}
			receiver := f.Recv.List[0].Type
			if star, ok := receiver.(*ast.StarExpr); ok {
				receiver = star.X
			}
			if name, ok := receiver.(*ast.Ident); ok && name.IsExported() {
				t.Errorf("%s: %s.%s can be called by anybody", path, name.Name, f.Name.Name)
			} else {
				unexported++
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 || unexported < 6 {
		t.Errorf("looked at %d files with %d methods of hooks, want those of envelope and idempotency among them", files, unexported)
	}
}
