package report

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/usher-go/usher/benchmarks/internal/contest"
	"github.com/usher-go/usher/benchmarks/internal/loopback"
	"github.com/usher-go/usher/benchmarks/internal/results"
)

// A Table lists what is measured and the targets of the results.
type Table struct {
	Rows   []contest.Row
	Scales []contest.Scale
	Shares []loopback.Target
}

// Contest is the table of the benchmarks of this module.
func Contest() Table { return Table{contest.Rows(), contest.Scales(), loopback.Targets()} }

// A Report is a text about results.
type Report struct {
	Table

	set         *results.Set
	comparisons []comparison
}

// New returns the report of the results of a table.
func New(s *results.Set, t Table) *Report { return &Report{t, s, compareAll(s, t)} }

// row finds a row of the table. One that is not there has no contestants.
func (r *Report) row(layer, work string) contest.Row {
	i := slices.IndexFunc(r.Rows, func(row contest.Row) bool { return row.Layer == layer && row.Work == work })
	if i < 0 {
		return contest.Row{}
	}
	return r.Rows[i]
}

// Write writes README.md and the charts into the directory.
func (r *Report) Write(dir string) error {
	files := r.charts()
	files["README.md"] = []byte(r.Markdown())
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Markdown is the text of the report.
func (r *Report) Markdown() string {
	var b strings.Builder
	r.head(&b)
	r.targets(&b)
	r.servers(&b)
	r.layers(&b)
	r.scale(&b)
	r.method(&b)
	r.versions(&b)
	return b.String()
}

func (r *Report) head(b *strings.Builder) {
	s := r.set
	fmt.Fprintf(b, `# Benchmarks

usher beside what one would pick instead, on the same work in the same run. A program
writes this page from [results.txt](results.txt); `+"`make bench`"+` measures again.

| | |
|---|---|
| machine | %s, %s processors, %s |
| Go | %s |
| date | %s |
| commit | %s |
| rounds | %d, each Go benchmark for %s a round |

`, or(s.Config("cpu"), "unknown"), s.Config("cpus"), s.Config("system"), s.Config("go"), s.Config("date"), s.Config("commit"), s.Rounds(), s.Config("benchtime"))
	b.WriteString(picture("", "overhead", "Time that one layer adds to a request"))
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// picture shows a chart in the colours of the page.
func picture(dir, name, alt string) string {
	return fmt.Sprintf(`<picture>
  <source media="(prefers-color-scheme: dark)" srcset="%[1]s%[2]s-dark.svg">
  <img alt="%[3]s" src="%[1]s%[2]s-light.svg">
</picture>

`, dir, name, alt)
}

func (r *Report) targets(b *strings.Builder) {
	met := 0
	var rows [][]string
	for _, j := range r.comparisons {
		if j.met {
			met++
		}
		rows = append(rows, []string{j.layer, code(j.work), j.target, j.measured, j.verdict()})
	}
	fmt.Fprintf(b, `## Targets

%d of %d targets are met. A ratio is the median of the ratios within the rounds, in
brackets the bounds of its 95 %% confidence interval; it is within the spread if these lie
on both sides of the target. What router and handler cost alone is subtracted on both
sides.

`, met, len(r.comparisons))
	table(b, "", []string{"layer", "work", "target", "measured", ""}, rows)
}

// Verdicts lists the targets as plain text, for a terminal.
func (r *Report) Verdicts() string {
	var b strings.Builder
	for _, j := range r.comparisons {
		plain := strings.NewReplacer("**", "", "`", "")
		fmt.Fprintf(&b, "%-28s %s/%s: %s, measured %s\n", plain.Replace(j.verdict()), j.layer, j.work, plain.Replace(j.target), plain.Replace(j.measured))
	}
	return b.String()
}
