package usher_test

import (
	"go/ast"
	"go/token"
	"strings"
	"testing"
)

// Only the response writer may call the methods of httpwriter.Hook, not handlers or
// users: no exported type has such a method.
func TestNoExportedTypeIsAHookOfTheResponseWriter(t *testing.T) {
	hook := map[string]bool{"Head": true, "Body": true, "Release": true}
	files, unexported := 0, 0
	sources(t, func(path string, file *ast.File, positions *token.FileSet) {
		if strings.HasPrefix(path, "internal/") {
			return
		}
		files++
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
				t.Errorf("%s: %s.%s can be called by anybody", positions.Position(f.Pos()), name.Name, f.Name.Name)
			} else {
				unexported++
			}
		}
	})
	if files < 50 || unexported < 6 {
		t.Errorf("looked at %d files with %d methods of hooks, want those of envelope and idempotency among them", files, unexported)
	}
}
