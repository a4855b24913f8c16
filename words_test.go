package usher_test

import (
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
	"unicode"
)

// banned are words that this module does not use, with the words of the RFCs and of other
// libraries that it uses instead. A phrase is matched exactly, and a word as a whole word
// or as a part of a name.
var banned = map[string]string{
	"afresh":          "again",
	"answer":          "response, respond",
	"answered":        "responded to",
	"answering":       "responding",
	"answers":         "responses, responds",
	"astray":          "lost",
	"astride":         "around",
	"buried":          "tombstone",
	"buries":          "tombstone",
	"bury":            "tombstone",
	"deaf":            "that ignores its context",
	"door":            "extractor, in front of",
	"doors":           "extractors",
	"forgo":           "refund",
	"forgoes":         "refunds",
	"forgone":         "refunded",
	"for ever":        "forever",
	"for longest":     "least recently",
	"gate":            "parse",
	"gates":           "parses",
	"held":            "pending, kept, in use",
	"judge":           "verify, decide",
	"judged":          "verified, decided",
	"judges":          "verifies, decides",
	"judging":         "verifying, deciding",
	"knock":           "probe",
	"leaver":          "a client that disconnects",
	"leavers":         "clients that disconnect",
	"life":            "TTL, lifetime",
	"lookuper":        "name the method",
	"minds":           "respects",
	"mostly":          "usually",
	"newcomer":        "a new client, a new key",
	"newcomers":       "new clients, new keys",
	"on the long run": "on average",
	"owed":            "pending",
	"owes":            "has pending",
	"presented":       "sent; the credential",
	"presents":        "sends, carries",
	"restrained":      "name the restriction",
	"shall":           "must",
	"stranger":        "foreign, unknown",
	"strangers":       "foreign, unknown",
	"suspicious":      "name the suspicion",
	"tell":            "report, return, distinguish",
	"tells":           "reports, returns",
	"those of before": "the previous ones",
	"to the letter":   "exactly",
	"told":            "reported, passed",
	"twin":            "duplicate request",
	"twins":           "duplicate requests",
	"whoever":         "a caller that, code that",
	"whomever":        "a caller that, code that",
}

// plain are phrases in which a banned word is the right one.
var plain = []string{"lock held", "lock is held", "held up"}

// TestWords looks for banned words in everything that a reader sees of every package,
// tests included: names, comments, texts and the names of files, and in all pages.
func TestWords(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		var found []string
		switch {
		case strings.HasSuffix(path, ".go") && path != "words_test.go":
			found, err = findWords(path, nil)
		// The changelog names what was renamed.
		case strings.HasSuffix(path, ".md") && path != "CHANGELOG.md":
			found, err = findWordsOfPage(path)
		}
		for _, f := range found {
			t.Error(f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// findWords returns where a file holds banned words: in its name, its comments, the
// names that it declares, and its texts, which are strings with a blank. A nil src means
// the file at path.
func findWords(path string, src any) (found []string, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, src, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	look := func(at token.Pos, what, text string) {
		for _, word := range bannedWords(text) {
			found = append(found, fmt.Sprintf("%s: %s has %q: write %s", files.Position(at), what, word, banned[word]))
		}
	}
	look(file.Package, "the name of the file", strings.TrimSuffix(filepath.Base(path), ".go"))
	for _, group := range file.Comments {
		for _, comment := range group.List {
			look(comment.Pos(), "a comment", withoutQuotes(comment.Text))
		}
	}
	ast.Inspect(file, func(node ast.Node) bool {
		switch node := node.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.Field:
			node.Tag = nil // It belongs to the wire format.
		case *ast.BasicLit:
			text, err := strconv.Unquote(node.Value)
			if err == nil && node.Kind == token.STRING && strings.Contains(text, " ") {
				look(node.Pos(), "a text", text)
			}
		}
		for _, name := range declared(node) {
			look(name.Pos(), "the name "+name.Name, name.Name)
		}
		return true
	})
	return found, nil
}

// findWordsOfPage returns where a page of Markdown holds banned words.
func findWordsOfPage(path string) (found []string, err error) {
	page, err := os.ReadFile(path)
	n := 0
	for line := range strings.Lines(string(page)) {
		n++
		for _, word := range bannedWords(withoutQuotes(line)) {
			found = append(found, fmt.Sprintf("%s:%d: the page has %q: write %s", path, n, word, banned[word]))
		}
	}
	return found, err
}

// declared returns the names that node declares.
func declared(node ast.Node) []*ast.Ident {
	var exprs []ast.Expr
	switch node := node.(type) {
	case *ast.FuncDecl:
		return []*ast.Ident{node.Name}
	case *ast.TypeSpec:
		return []*ast.Ident{node.Name}
	case *ast.ValueSpec:
		return node.Names
	case *ast.Field:
		return node.Names
	case *ast.AssignStmt:
		if node.Tok == token.DEFINE {
			exprs = node.Lhs
		}
	case *ast.RangeStmt:
		if node.Tok == token.DEFINE {
			exprs = []ast.Expr{node.Key, node.Value}
		}
	}
	var names []*ast.Ident
	for _, e := range exprs {
		if name, ok := e.(*ast.Ident); ok {
			names = append(names, name)
		}
	}
	return names
}

var quoted = regexp.MustCompile(`"[^"\n]*"`)

// withoutQuotes removes what a comment quotes: an RFC, or what goes over the wire.
func withoutQuotes(comment string) string { return quoted.ReplaceAllString(comment, "") }

// bannedWords returns the banned words and phrases of text.
func bannedWords(text string) (found []string) {
	line := " " + strings.Join(words(text), " ") + " "
	for _, phrase := range plain {
		line = strings.ReplaceAll(line, " "+phrase+" ", " ")
	}
	for word := range banned {
		if strings.Contains(line, " "+word+" ") {
			found = append(found, word)
		}
	}
	slices.Sort(found)
	return found
}

// words returns the words of a text in lower case. A capital begins a new word in a name:
// HTTPServer has two.
func words(text string) []string {
	runes := []rune(text)
	var spaced strings.Builder
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r):
			r = ' '
		case unicode.IsUpper(r) && i > 0 &&
			(unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])):
			spaced.WriteByte(' ')
		}
		spaced.WriteRune(unicode.ToLower(r))
	}
	return strings.Fields(spaced.String())
}

func TestWordsAreFound(t *testing.T) {
	const head = "package p\n"
	for _, test := range []struct {
		name string
		path string
		src  string
		want []string
	}{
		{"a function", "p.go", "func WriteAnswer() {}", []string{"answer"}},
		{"a method", "p.go", "func (t T) HTTPAnswers() {}", []string{"answers"}},
		{"a type with a field", "p.go", "type TwinLife struct{ MaxAnswer int }", []string{"life", "twin", "answer"}},
		{"a method of an interface", "p.go", "type I interface{ Judge() }", []string{"judge"}},
		{"a constant and a variable", "p.go", "const StateHeld = 1; var ErrTwin error", []string{"held", "twin"}},
		{"a message", "p.go", `var err = errors.New("the answer is late")`, []string{"answer"}},
		{"a message in raw quotes", "p.go", "var err = errors.New(`the answer is late`)", []string{"answer"}},
		{"a phrase over a line end", "p.go", `const s = "no key\nto the letter"`, []string{"to the letter"}},
		{"each word once", "p.go", `const s = "an answer, and an answer"`, []string{"answer"}},

		{"a part of a longer word", "p.go", `var Lifetime = "withheld doorstep propagates"; type Gateway int`, nil},
		{"an attribute, which is no sentence", "p.go", `const s = "answer"`, nil},
		{"a tag of a field", "p.go", "type T struct{ A int `json:\"answer\" xml:\"answer\"` }", nil},
		{"an import", "p.go", `import "example.com/the answer"`, nil},
		{"a word in its plain sense", "p.go", `const s = "called with the lock held"`, nil},

		{"a comment", "p.go", "// It tells\n// nobody.\nvar a int", []string{"tells"}},
		{"a comment within a function", "p.go", "func f() { /* the door */ }", []string{"door"}},
		{"what a comment quotes", "p.go", `// "The server shall answer", as RFC 1 says.` + "\nvar a int", nil},
		{"names inside", "p.go", "func f(twin int) { for life := range 1 { held := 1 } }", []string{"twin", "life", "held"}},
		{"names of others", "p.go", "func f() { dns.Answer(life) }", nil},
		{"names with underscores", "p.go", "const max_answer = 1", []string{"answer"}},
		{"the name of a file", "twins_test.go", "", []string{"twins"}},
		{"a test", "p_test.go", `func TestTwins() { t.Error("the door") }`, []string{"twins", "door"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, err := findWords(test.path, head+test.src)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range found {
				if !strings.HasPrefix(f, test.path+":") {
					t.Errorf("no position: %s", f)
				}
				for word, instead := range banned {
					if strings.Contains(f, strconv.Quote(word)+": write "+instead) {
						got = append(got, word)
					}
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("found %q in %q, want %q", got, found, test.want)
			}
		})
	}
}

func TestWordsOfPagesAreFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(path, []byte("# Title\n\nThe answer, and \"the answer\" of an RFC.\nA Lifetime.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := findWordsOfPage(path)
	if err != nil || len(found) != 1 || !strings.HasPrefix(found[0], path+`:3: the page has "answer"`) {
		t.Errorf("found %q, %v", found, err)
	}
}
