package usher_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	threatHeading = regexp.MustCompile(`^### ([A-Z]\d{1,2}) `)
	testReference = regexp.MustCompile("`(?:([a-z0-9]+)\\.)?((?:Test|Fuzz)\\w+)`")
	rowReference  = regexp.MustCompile(`[Hh]ostile\s+rows ([A-Z]\d{1,2})`)

	// Where tests name threats: at the beginning of a case ("T1, P04: ..."), in a
	// comment, and in the name of a function.
	threatOfCase     = regexp.MustCompile(`^[AEJPRSTX]\d{1,2}\b(?:, [AEJPRSTX]\d{1,2}\b)*[: ]`)
	threatOfComment  = regexp.MustCompile(`^// [AEJPRSTX]\d{1,2}\b(?:, [AEJPRSTX]\d{1,2}\b)*`)
	threatOfFunction = regexp.MustCompile(`^(?:Test|Fuzz)([AEJPRSTX]\d{1,2})[A-Z]`)
	threatID         = regexp.MustCompile(`[A-Z]\d{1,2}\b`)
)

// TestEveryThreatIsDefined compares docs/threats.md with the tests of the whole
// repository, which it parses wherever they are.
func TestEveryThreatIsDefined(t *testing.T) {
	tests, cases, used := readTests(t)
	b, err := os.ReadFile("docs/threats.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)

	defined := make(map[string]bool)
	for i, line := range strings.Split(text, "\n") {
		if m := threatHeading.FindStringSubmatch(line); m != nil {
			if defined[m[1]] {
				t.Errorf("docs/threats.md:%d: %s is defined twice", i+1, m[1])
			}
			defined[m[1]] = true
		}
	}
	for page, least := range map[string]int{"docs/threats.md": 20, "docs/idempotency-draft.md": 20, "docs/guarantees.md": 8, "README.md": 1} {
		wantTests(t, page, least, tests)
	}
	for _, m := range rowReference.FindAllStringSubmatch(text, -1) {
		if !isHostileRow(tests, cases, m[1]) {
			t.Errorf("docs/threats.md: no hostile row begins with %s", m[1])
		}
	}
	for id, where := range used {
		if !defined[id] {
			t.Errorf("%s: docs/threats.md does not define %s", where, id)
		}
	}
	if len(used) < 40 {
		t.Errorf("the tests name only %d threats", len(used))
	}
}

// wantTests fails the test unless every test that a page names exists, and there are at
// least so many.
func wantTests(t *testing.T, page string, least int, tests map[testName]bool) {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for i, line := range strings.Split(string(b), "\n") {
		for _, m := range testReference.FindAllStringSubmatch(line, -1) {
			if named++; !isTest(tests, m[1], m[2]) {
				t.Errorf("%s:%d: there is no test %s", page, i+1, strings.Trim(m[0], "`"))
			}
		}
	}
	if named < least {
		t.Errorf("%s names only %d tests", page, named)
	}
}

// A testName is the name of a test, or the ID of a case, with its package without _test.
type testName struct{ pkg, name string }

// isTest reports whether name is a test of pkg or, if it ends in the ID of a threat, the
// beginning of a test's name. An empty pkg means any package.
func isTest(tests map[testName]bool, pkg, name string) bool {
	for t := range tests {
		id := threatOfFunction.FindStringSubmatch(t.name)
		if (pkg == "" || pkg == t.pkg) && (name == t.name || id != nil && name == "Test"+id[1]) {
			return true
		}
	}
	return false
}

// isHostileRow reports whether a case in a package with TestHostile begins with id.
func isHostileRow(tests, cases map[testName]bool, id string) bool {
	for t := range tests {
		if t.name == "TestHostile" && cases[testName{t.pkg, id}] {
			return true
		}
	}
	return false
}

// readTests returns all tests, the threats that test cases begin with, and the
// position of one use of each threat.
func readTests(t *testing.T) (tests, cases map[testName]bool, used map[string]string) {
	t.Helper()
	tests, cases, used = make(map[testName]bool), make(map[testName]bool), make(map[string]string)
	files := token.NewFileSet()
	use := func(at token.Pos, ids string) {
		for _, id := range threatID.FindAllString(ids, -1) {
			used[id] = files.Position(at).String()
		}
	}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(files, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		pkg := strings.TrimSuffix(file.Name.Name, "_test")
		for _, group := range file.Comments {
			for _, comment := range group.List {
				use(comment.Pos(), threatOfComment.FindString(comment.Text))
			}
		}
		ast.Inspect(file, func(node ast.Node) bool {
			switch node := node.(type) {
			case *ast.FuncDecl:
				tests[testName{pkg, node.Name.Name}] = true
				if m := threatOfFunction.FindStringSubmatch(node.Name.Name); m != nil {
					use(node.Pos(), m[1])
				}
			case *ast.BasicLit:
				text, _ := strconv.Unquote(node.Value)
				ids := threatOfCase.FindString(text)
				use(node.Pos(), ids)
				for _, id := range threatID.FindAllString(ids, -1) {
					cases[testName{pkg, id}] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests, cases, used
}
