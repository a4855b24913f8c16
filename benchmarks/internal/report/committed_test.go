package report_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/usher-go/usher/benchmarks/internal/report"
)

// What is committed is what the stored results say. After a change of the table or of
// the report, go run ./cmd/bench -report-only writes both again.
func TestCommittedReportAndREADMEAgreeWithTheResults(t *testing.T) {
	r := open(t, "../../report/results.txt", report.Contest())
	if diff := cmp.Diff(read(t, "../../report/README.md"), r.Markdown()); diff != "" {
		t.Errorf("report/README.md (-committed +results):\n%s", diff)
	}
	readme := read(t, "../../../README.md")
	_, rest, _ := strings.Cut(readme, "<!-- figures:begin -->\n")
	figures, _, _ := strings.Cut(rest, "<!-- figures:end -->")
	if diff := cmp.Diff(figures, r.Figures()); diff != "" {
		t.Errorf("the figures of README.md (-committed +results):\n%s", diff)
	}
}
