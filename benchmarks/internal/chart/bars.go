package chart

import (
	"image/color"
	"math"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Bars is a chart of groups of named values, one below the other.
type Bars struct {
	Title, Subtitle string

	// Axis describes the values.
	Axis string

	// Log spaces the values by their logarithm. Then a value is a dot and not the
	// length of a bar, because that has no zero to start from.
	Log bool

	Format func(float64) string
	Groups []Group
}

// A Group is a set of values to be compared with each other.
type Group struct {
	Name string
	Bars []Bar
}

// A Bar is a value with the bounds of its confidence interval.
type Bar struct {
	Name          string
	Value, Lo, Hi float64
	Ours          bool

	// Note follows the value, for instance what it is relative to another.
	Note string
}

const (
	rowHeight   = 19
	groupHeight = 26 // of its name
	groupGap    = 8
	namesWidth  = 212
	valuesWidth = 132
	axisHeight  = 46
	dot         = 4.5
)

func (b Bars) height() vg.Length {
	h := vg.Length(0)
	for _, g := range b.Groups {
		h += groupHeight + groupGap + vg.Length(len(g.Bars))*rowHeight
	}
	return h
}

func (b Bars) bounds() (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, g := range b.Groups {
		for _, bar := range g.Bars {
			low, high = min(low, bar.Value), max(high, bar.Value, bar.Hi)
		}
	}
	if !b.Log {
		return 0, high
	}
	return math.Pow(10, math.Floor(math.Log10(low))), high * 1.1
}

// SVG draws the chart.
func (b Bars) SVG(t Theme) []byte {
	rows := b.height()
	page := t.page(heading+rows+axisHeight, b.Title, b.Subtitle)

	p := plot.New()
	p.BackgroundColor = nil
	p.HideY()
	page.axis(&p.X, b.Axis)
	p.X.Min, p.X.Max = b.bounds()
	p.X.Tick.Marker = steps(5, b.Format)
	if b.Log {
		p.X.Scale = plot.LogScale{}
		p.X.Tick.Marker = decades(b.Format)
	}
	p.Y.Min, p.Y.Max = 0, 1
	p.Add(&barRows{b, page})
	p.Draw(draw.Crop(page.canvas, namesWidth, -valuesWidth, 8, -heading))
	return page.bytes()
}

// barRows draws the groups from the top of the data down.
type barRows struct {
	Bars
	*page
}

// Plot implements [plot.Plotter].
func (b *barRows) Plot(c draw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	var grid []vg.Length
	for _, tick := range p.X.Tick.Marker.Ticks(p.X.Min, p.X.Max) {
		grid = append(grid, x(tick.Value))
	}
	y := c.Max.Y
	for _, g := range b.Groups {
		words(c, style(b.text, textSize, font.WeightBold), vg.Point{X: margin, Y: y - groupHeight/2}, g.Name)
		y -= groupHeight
		for _, bar := range g.Bars {
			b.row(c, bar, x, y-rowHeight/2, grid)
			y -= rowHeight
		}
		y -= groupGap
	}
}

// row draws a value at the height y, over the lines of the grid that its text does not
// cover.
func (b *barRows) row(c draw.Canvas, bar Bar, x func(float64) vg.Length, y vg.Length, grid []vg.Length) {
	fill, name, value := b.rival, style(b.text, textSize, font.WeightNormal), style(b.muted, textSize, font.WeightNormal)
	if bar.Ours {
		fill, name = b.ours, style(b.ours, textSize, font.WeightBold)
		value = name
	}
	note := style(b.muted, smallSize, font.WeightNormal)
	text := b.Format(bar.Value)
	end := b.end(bar, x)
	at := vg.Point{X: end + 7, Y: y}
	beside := vg.Point{X: at.X + value.Width(text) + 7, Y: y}
	for _, line := range grid {
		if line < end || line > beside.X+note.Width(bar.Note) {
			c.StrokeLine2(draw.LineStyle{Color: b.grid, Width: 1}, line, y-rowHeight/2, line, y+rowHeight/2)
		}
	}
	words(c, aligned(name, draw.XRight), vg.Point{X: c.Min.X - 10, Y: y}, bar.Name)
	b.mark(c, fill, bar, x, y)
	words(c, value, at, text)
	words(c, note, beside, bar.Note)
}

// end is the right end of the drawing of a value.
func (b *barRows) end(bar Bar, x func(float64) vg.Length) vg.Length {
	end := x(bar.Value)
	if b.Log {
		end += dot
	}
	return max(end, x(max(bar.Value, bar.Hi)))
}

// mark draws a value and its bounds.
func (b *barRows) mark(c draw.Canvas, fill color.Color, bar Bar, x func(float64) vg.Length, y vg.Length) {
	left, right := c.Min.X, x(bar.Value)
	if !b.Log {
		rectangle(c, fill, left, right, y-6, y+6)
		b.interval(c, bar, x, y)
		return
	}
	c.StrokeLine2(draw.LineStyle{Color: fill, Width: 1.5}, left, y, right, y)
	b.interval(c, bar, x, y)
	disc(c, fill, vg.Point{X: right, Y: y}, dot)
}

// interval draws the bounds of a value, unless its dot covers them.
func (b *barRows) interval(c draw.Canvas, bar Bar, x func(float64) vg.Length, y vg.Length) {
	low, _ := b.bounds()
	left, right := x(max(bar.Lo, low)), x(max(bar.Hi, low))
	if right-left < 2*dot {
		return
	}
	line := draw.LineStyle{Color: b.text, Width: 1}
	c.StrokeLine2(line, left, y, right, y)
	c.StrokeLine2(line, left, y-3, left, y+3)
	c.StrokeLine2(line, right, y-3, right, y+3)
}

func disc(c draw.Canvas, fill color.Color, at vg.Point, radius vg.Length) {
	c.DrawGlyphNoClip(draw.GlyphStyle{Color: fill, Radius: radius, Shape: draw.CircleGlyph{}}, at)
}

func rectangle(c draw.Canvas, fill color.Color, left, right, bottom, top vg.Length) {
	c.FillPolygon(fill, []vg.Point{{X: left, Y: bottom}, {X: right, Y: bottom}, {X: right, Y: top}, {X: left, Y: top}})
}
