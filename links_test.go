package usher_test

import (
	"go/ast"
	"go/doc/comment"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestLinksOfDocumentationResolve reads comments as pkg.go.dev does, which shows as text
// what is a link to a package that the file does not import, or has a letter behind it.
func TestLinksOfDocumentationResolve(t *testing.T) {
	links := 0
	imports := make(map[string]map[string]string) // of a package, not only of a file
	check := func(file string, comments *ast.CommentGroup, imported map[string]string) {
		parser := comment.Parser{
			LookupPackage: func(name string) (string, bool) {
				if path, ok := imported[name]; ok {
					return path, true
				}
				return comment.DefaultLookupPackage(name)
			},
			LookupSym: func(string, string) bool { return true },
		}
		for _, text := range texts(parser.Parse(comments.Text()).Content) {
			switch text := text.(type) {
			case *comment.DocLink:
				links++
			case comment.Plain:
				for _, found := range bracketed.FindAllString(string(text), -1) {
					t.Errorf("%s: %s is no link", file, found)
				}
			}
		}
	}
	sources(t, func(file string, f *ast.File, _ *token.FileSet) {
		imported := imports[path.Dir(file)]
		if imported == nil {
			imported = make(map[string]string)
			imports[path.Dir(file)] = imported
		}
		for _, spec := range f.Imports {
			name := strings.Trim(spec.Path.Value, `"`)
			base := path.Base(name)
			if major.MatchString(base) {
				base = path.Base(path.Dir(name))
			}
			imported[base] = name
		}
	})
	sources(t, func(file string, f *ast.File, _ *token.FileSet) {
		for _, group := range f.Comments {
			check(file, group, imports[path.Dir(file)])
		}
	})
	if links < 100 {
		t.Errorf("%d links, want many", links)
	}
}

// TestPagesLinkToFiles looks for the files and directories that the pages link to.
func TestPagesLinkToFiles(t *testing.T) {
	for _, page := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/threats.md", "docs/guarantees.md", "docs/gateways.md", "docs/telemetry.md", "docs/routers.md", "docs/idempotency-draft.md", "benchmarks/report/README.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range localLink.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", page, m[1])
			}
		}
	}
}

var (
	// localLink is the target of a link, other than a URL or a place in the same page.
	localLink = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)

	major = regexp.MustCompile(`^v\d+$`)
	// bracketed is what was meant to be a link to another package. A type argument
	// follows a letter.
	bracketed = regexp.MustCompile(`\B\[\*?\w+(\.\w+)+\]`)
)

// texts returns the text of blocks.
func texts(blocks []comment.Block) (all []comment.Text) {
	for _, b := range blocks {
		switch b := b.(type) {
		case *comment.Paragraph:
			all = append(all, b.Text...)
		case *comment.List:
			for _, item := range b.Items {
				all = append(all, texts(item.Content)...)
			}
		}
	}
	return all
}
