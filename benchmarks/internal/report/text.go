package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/usher-go/usher/benchmarks/internal/results"
)

// titles are the layers for readers, in place of the names of their benchmarks.
var titles = map[string]string{
	"Floor":             "Floors",
	"LimiterDecision":   "Rate limit, the decision alone",
	"LimiterMiddleware": "Rate limit",
	"APIKey":            "API key",
	"Stack":             "Whole stack, in memory",
	"Adapter":           "Adapters",
}

func title(layer string) string {
	if t, ok := titles[layer]; ok {
		return t
	}
	return layer
}

func code(s string) string { return "`" + s + "`" }

// number writes three significant digits.
func number(v float64) string {
	if math.Abs(v) >= 1000 {
		return strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func plural(n float64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// ratioText is a ratio with its bounds, which have one digit more than is needed to
// distinguish them from it.
func ratioText(r results.Summary) string {
	return fmt.Sprintf("**%s** (%s–%s)", number(r.Median), number(r.Lo), number(r.Hi))
}

// spread is the farther bound as a part of the median.
func spread(s results.Summary) string {
	if s.Median == 0 {
		return ""
	}
	return fmt.Sprintf("±%.0f %%", 100*max(s.Hi-s.Median, s.Median-s.Lo)/math.Abs(s.Median))
}

// table writes a table in Markdown. Columns of right are aligned to the right.
func table(b *strings.Builder, right string, head []string, rows [][]string) {
	line := func(cells []string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	rule := make([]string, len(head))
	for i := range rule {
		rule[i] = "---"
		if i < len(right) && right[i] == 'r' {
			rule[i] = "---:"
		}
	}
	line(rule)
	for _, row := range rows {
		line(row)
	}
	b.WriteByte('\n')
}
