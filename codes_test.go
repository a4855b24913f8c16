package usher_test

import (
	"go/ast"
	"go/token"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/usher-go/usher"
)

// The comment of each code in codes.go lists the statuses with which the code is sent,
// and the sources send it with no other status.
func TestCodesAreSentWithTheirDocumentedStatus(t *testing.T) {
	documented := make(map[string][]int)
	sources(t, func(path string, file *ast.File, _ *token.FileSet) {
		if path != "codes.go" {
			return
		}
		ast.Inspect(file, func(node ast.Node) bool {
			if spec, ok := node.(*ast.ValueSpec); ok {
				documented[spec.Names[0].Name] = statuses(spec.Comment.Text())
			}
			return true
		})
	})
	sent := make(map[string]int)
	sources(t, func(_ string, file *ast.File, files *token.FileSet) {
		ast.Inspect(file, func(node ast.Node) bool {
			lit, ok := node.(*ast.CompositeLit)
			if !ok {
				return true
			}
			members := make(map[string]ast.Expr)
			for _, e := range lit.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok {
					if key, ok := kv.Key.(*ast.Ident); ok {
						members[key.Name] = kv.Value
					}
				}
			}
			code, status := nameOf(members["Code"]), nameOf(members["Status"])
			if _, ok := documented[code]; !ok || !strings.HasPrefix(status, "Status") {
				return true
			}
			sent[code]++
			if n := statusByName(status); !slices.Contains(documented[code], n) {
				t.Errorf("%s: %s is sent with %d, and documented with %v", files.Position(lit.Pos()), code, n, documented[code])
			}
			return true
		})
	})
	// The sources do not set the status next to these codes; the tests of their packages
	// check it.
	apart := []string{"CodeRateLimited", "CodeTooManyConcurrent", "CodeUnsupportedMediaType"}
	for code, list := range documented {
		if len(list) == 0 {
			t.Errorf("%s has no status in its comment", code)
		} else if list[0] >= 400 && sent[code] == 0 && !slices.Contains(apart, code) {
			t.Errorf("nothing sends %s", code)
		}
	}
}

// statuses returns the statuses with which a comment such as "500 or 503: text" begins.
func statuses(comment string) (list []int) {
	text, _, _ := strings.Cut(comment, ":")
	for _, digits := range regexp.MustCompile(`\b[1-5][0-9]{2}\b`).FindAllString(text, -1) {
		n, _ := strconv.Atoi(digits)
		list = append(list, n)
	}
	return list
}

// nameOf returns the name of a constant of this or another package, or "".
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

// statusByName returns the status that a constant such as StatusNotFound has, or 0.
func statusByName(name string) int {
	if name == "StatusClientClosedRequest" {
		return usher.StatusClientClosedRequest
	}
	for n := range 600 {
		if text := http.StatusText(n); text != "" && name == "Status"+strings.ReplaceAll(text, " ", "") {
			return n
		}
	}
	return 0
}
