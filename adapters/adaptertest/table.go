package adaptertest

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Table returns the table of routers in Markdown: a row for each kind of behaviour, and a
// column for each of files, which are declarations of routers. Notes below the table
// explain the differences.
func Table(files ...string) (string, error) {
	columns := make([]declaration, len(files))
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("adaptertest: %w", err)
		}
		if err := json.Unmarshal(text, &columns[i]); err != nil {
			return "", fmt.Errorf("adaptertest: %s: %w", file, err)
		}
	}
	var b strings.Builder
	b.WriteString("| behaviour |")
	for _, d := range columns {
		fmt.Fprintf(&b, " %s |", d.Router)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(columns)) + "\n")
	var notes notes
	for _, row := range rows {
		fmt.Fprintf(&b, "| %d. %s |", row.number, row.name)
		for _, d := range columns {
			fmt.Fprintf(&b, " %s |", d.cell(row, &notes))
		}
		b.WriteString("\n")
	}
	for i, note := range notes {
		fmt.Fprintf(&b, "\n%d. %s", i+1, note)
	}
	if len(notes) > 0 {
		b.WriteString("\n")
	}
	return b.String(), nil
}

// cell returns the cell of a router in a row.
func (d declaration) cell(row row, notes *notes) string {
	count := make(map[string]int)
	var refer []string
	for _, b := range row.behaviours {
		i := slices.IndexFunc(d.Behaviours, func(s declaredState) bool { return s.ID == row.id(b) })
		if i < 0 {
			return "?" // a file from before this behaviour
		}
		state := d.Behaviours[i]
		count[state.State]++
		if state.State == differs {
			refer = append(refer, notes.refer(state.Reason))
		}
	}
	text := "yes"
	switch {
	case count[lacks] == len(row.behaviours):
		return "–"
	case row.number == allocsRow:
		return strconv.Itoa(d.Allocs)
	case count[alike] == 0:
		text = "no"
	case count[differs] > 0:
		text = "partly"
	}
	if len(refer) > 0 {
		text += " <sup>" + strings.Join(slices.Compact(refer), ", ") + "</sup>"
	}
	return text
}

// notes are the reasons below the table, each once.
type notes []string

func (n *notes) refer(reason string) string {
	i := slices.Index(*n, reason)
	if i < 0 {
		i = len(*n)
		*n = append(*n, reason)
	}
	return strconv.Itoa(i + 1)
}
