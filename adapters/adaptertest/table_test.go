package adaptertest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/usher-go/usher/adapters/adaptertest"
)

// TestTable compares the table of the page about routers with the files that the suites of all
// routers have written; USHER_UPDATE=1 writes it.
func TestTable(t *testing.T) {
	const page, begin, end = "../../docs/routers.md", "<!-- adapters:begin -->\n", "<!-- adapters:end -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Skip("not in the repository") // but in the module cache
	}
	files, err := filepath.Glob("../*/testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	table, err := adaptertest.Table(files...)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	if old == table {
		return
	}
	if os.Getenv("USHER_UPDATE") != "1" {
		t.Fatalf("the table of %s is not what the routers declare; USHER_UPDATE=1 go test -run TestTable writes it", page)
	}
	if err := os.WriteFile(page, []byte(before+begin+table+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTableOfStrangeFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := adaptertest.Table(write("broken", "{")); err == nil {
		t.Error("a broken file is accepted")
	}
	if _, err := adaptertest.Table(filepath.Join(dir, "none")); err == nil {
		t.Error("a missing file is accepted")
	}
	table, err := adaptertest.Table(write("old", `{"router":"old"}`))
	if err != nil || !strings.Contains(table, "| behaviour | old |\n") || !strings.Contains(table, " ? |\n") {
		t.Errorf("%v, table %s", err, table)
	}
}
