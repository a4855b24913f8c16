package report

import "strings"

type scaleChart struct {
	file  string
	chart drawing
}

func (r *Report) scales() []scaleChart { return nil }

func (r *Report) scale(b *strings.Builder) {}
