package report

import (
	"fmt"
	"strings"

	"github.com/usher-go/usher/benchmarks/internal/contest"
)

func (r *Report) method(b *strings.Builder) {
	fmt.Fprintf(b, `## How this is measured

- A round runs each Go benchmark once for %s, in random order, and then the servers, each
  as a new process. Medians and their bounds are those of the rounds, by
  [benchmath](https://pkg.go.dev/golang.org/x/perf/benchmath), which assumes no distribution;
  with fewer than six rounds the bounds are the least and the greatest value.
- The spread is the farther bound of the 95 %% confidence interval of the median. Times are
  comparable within one run only; allocations are exact everywhere.
- Each contestant is driven through its public API as its own documentation shows, with
  the same request and the same writer in memory, and its response is looked at before the
  clock starts. Over the loopback every status is checked, and the body once per
  connection.
- The latency of the open loop is recorded in an
  [HDR histogram](https://pkg.go.dev/github.com/HdrHistogram/hdrhistogram-go) with three
  digits. The percentiles are medians of those of the rounds.
- [PROFILE.md](PROFILE.md) counts instructions, which do not depend on what else a machine
  does, and says what keeps the missed targets out of reach.
- [results.txt](results.txt) has every result of every round in the format of Go
  benchmarks. In this directory's parent, this compares it with that of another run:

      go run golang.org/x/perf/cmd/benchstat -ignore round,date,commit report/results.txt other.txt

`, r.set.Config("benchtime"))
}

// versions lists the modules that were measured.
func (r *Report) versions(b *strings.Builder) {
	versions := make(map[string]string)
	for module := range strings.FieldsSeq(r.set.Config("modules")) {
		path, version, _ := strings.Cut(module, "@")
		versions[path] = version
	}
	var rows [][]string
	seen := make(map[string]bool)
	for _, row := range r.Rows {
		for _, c := range row.Contestants {
			if version, ok := versions[c.Module]; ok && !seen[c.Module] && c.Name != contest.Usher {
				seen[c.Module] = true
				rows = append(rows, []string{code(c.Module), version})
			}
		}
	}
	if len(rows) > 0 {
		b.WriteString("## Versions\n\n")
		table(b, "", []string{"module", "version"}, rows)
	}
}
