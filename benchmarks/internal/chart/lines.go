package chart

import (
	"cmp"
	"image/color"
	"math"
	"slices"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Lines is a chart of values over a quantity, both spaced by their logarithm, or over
// names at equal distances.
type Lines struct {
	Title, Subtitle string
	X, Y            string // what the axes are

	// XNames are the labels at 0, 1, 2... XFormat is for quantities.
	XNames           []string
	XFormat, YFormat func(float64) string

	Lines []Line
}

// A Line has its name at its right end.
type Line struct {
	Name   string
	Points plotter.XYs
	Ours   bool
}

const (
	linesHeight = 420
	labelGap    = 16 // least distance between two names
	labelWidth  = 192
)

// Dashes distinguish grey lines where they cross.
var dashes = [][]vg.Length{nil, {7, 3}, {2, 3}, {9, 3, 2, 3}, {4, 4}, {1, 2}}

// SVG draws the chart.
func (l Lines) SVG(t Theme) []byte {
	page := t.page(linesHeight, l.Title, l.Subtitle)
	p := plot.New()
	p.BackgroundColor = nil
	page.axis(&p.X, l.X)
	page.axis(&p.Y, "")
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = l.bounds()
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, decades(l.YFormat)
	if l.XNames != nil {
		p.X.Tick.Marker = named(l.XNames)
	} else {
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, l.points()
	}
	p.Add(&lines{l, page})
	page.canvas.FillText(style(page.muted, smallSize, font.WeightNormal), vg.Point{X: margin, Y: linesHeight - heading - 4}, l.Y)
	p.Draw(draw.Crop(page.canvas, margin, -labelWidth, 8, -heading-18))
	return page.bytes()
}

// points marks where the longest line has values.
func (l Lines) points() plot.Ticker {
	var ticks plot.ConstantTicks
	for _, line := range l.Lines {
		if len(line.Points) <= len(ticks) {
			continue
		}
		ticks = nil
		for _, point := range line.Points {
			ticks = append(ticks, plot.Tick{Value: point.X, Label: l.XFormat(point.X)})
		}
	}
	return ticks
}

func (l Lines) bounds() (xLow, xHigh, yLow, yHigh float64) {
	xLow, yLow, xHigh, yHigh = math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, line := range l.Lines {
		x0, x1, y0, y1 := plotter.XYRange(line.Points)
		xLow, xHigh, yLow, yHigh = min(xLow, x0), max(xHigh, x1), min(yLow, y0), max(yHigh, y1)
	}
	return xLow, xHigh, math.Pow(10, math.Floor(math.Log10(yLow))), math.Pow(10, math.Ceil(math.Log10(yHigh)))
}

type lines struct {
	Lines
	*page
}

// Plot implements [plot.Plotter].
func (l *lines) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, tick := range p.Y.Tick.Marker.Ticks(p.Y.Min, p.Y.Max) {
		c.StrokeLine2(draw.LineStyle{Color: l.grid, Width: 1}, c.Min.X, y(tick.Value), c.Max.X, y(tick.Value))
	}
	var ends []label
	dash := 0
	// Ours last, so that nothing covers it.
	ordered := slices.SortedStableFunc(slices.Values(l.Lines.Lines), func(a, b Line) int {
		return cmp.Compare(order(a), order(b))
	})
	for _, line := range ordered {
		stroke := draw.LineStyle{Color: l.rival, Width: 1.8, Dashes: dashes[dash%len(dashes)]}
		if line.Ours {
			stroke = draw.LineStyle{Color: l.ours, Width: 2.6}
		} else {
			dash++
		}
		path := make([]vg.Point, len(line.Points))
		for i, point := range line.Points {
			path[i] = vg.Point{X: x(point.X), Y: y(point.Y)}
		}
		c.StrokeLines(stroke, path)
		for _, at := range path {
			disc(c, stroke.Color, at, 3)
		}
		end := path[len(path)-1]
		ends = append(ends, label{line, stroke.Color, end, end.Y})
	}
	spread(ends)
	for _, end := range ends {
		l.label(c, end)
	}
}

func order(l Line) int {
	if l.Ours {
		return 1
	}
	return 0
}

// A label is the name of a line, at the height y beside its end.
type label struct {
	Line
	color color.Color
	end   vg.Point
	y     vg.Length
}

// spread moves labels apart, as little as possible, until none covers another. It
// begins with the middle one.
func spread(labels []label) {
	slices.SortStableFunc(labels, func(a, b label) int { return cmp.Compare(a.y, b.y) })
	middle := len(labels) / 2
	for i := middle + 1; i < len(labels); i++ {
		labels[i].y = max(labels[i].y, labels[i-1].y+labelGap)
	}
	for i := middle - 1; i >= 0; i-- {
		labels[i].y = min(labels[i].y, labels[i+1].y-labelGap)
	}
}

func (l *lines) label(c draw.Canvas, end label) {
	name := style(l.muted, textSize, font.WeightNormal)
	if end.Ours {
		name = style(l.ours, textSize, font.WeightBold)
	}
	at := vg.Point{X: c.Max.X + 26, Y: end.y}
	c.StrokeLine2(draw.LineStyle{Color: end.color, Width: 0.8}, end.end.X+5, end.end.Y, at.X-4, at.Y)
	words(c, name, at, end.Name)
	at.X += name.Width(end.Name) + 7
	words(c, style(l.muted, smallSize, font.WeightNormal), at, l.YFormat(end.Points[len(end.Points)-1].Y))
}
