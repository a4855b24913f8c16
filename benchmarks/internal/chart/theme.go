package chart

import (
	"bytes"
	"fmt"
	"image/color"

	"golang.org/x/image/font"
	"gonum.org/v1/plot"
	plotfont "gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Width is that of a README on GitHub. A length of one is a pixel here.
const Width vg.Length = 830

// A Theme has the colours of one kind of page.
type Theme struct {
	text, muted, grid, rival, ours color.Color
}

// The pages of GitHub.
var (
	Light = Theme{text: rgb(0x1f2328), muted: rgb(0x59636e), grid: rgb(0xdde3e9), rival: rgb(0x9aa4b0), ours: rgb(0xd9480f)}
	Dark  = Theme{text: rgb(0xf0f6fc), muted: rgb(0x9198a1), grid: rgb(0x2f363e), rival: rgb(0x6b7580), ours: rgb(0xff922b)}
)

func rgb(c uint32) color.Color {
	return color.NRGBA{R: uint8(c >> 16), G: uint8(c >> 8), B: uint8(c), A: 0xff}
}

// The sizes of the page's own text.
const (
	titleSize = 16
	textSize  = 12.5
	smallSize = 11.5
	margin    = 12
	heading   = 58 // of title and subtitle
)

func style(c color.Color, size vg.Length, weight font.Weight) text.Style {
	return text.Style{
		Color:   c,
		Font:    plotfont.Font{Typeface: "Liberation", Variant: "Sans", Weight: weight, Size: size},
		XAlign:  draw.XLeft,
		YAlign:  draw.YCenter,
		Handler: plot.DefaultTextHandler,
	}
}

// words writes text whose lower-case letters are centred at the height of at.
func words(c draw.Canvas, s text.Style, at vg.Point, text string) {
	at.Y += 1.5
	c.FillText(s, at, text)
}

func aligned(s text.Style, x draw.XAlignment) text.Style {
	s.XAlign = x
	return s
}

// A page is a chart that is being drawn.
type page struct {
	Theme
	svg    *vgsvg.Canvas
	canvas draw.Canvas
}

func (t Theme) page(height vg.Length, title, subtitle string) *page {
	svg := vgsvg.NewWith(vgsvg.UseWH(Width, height))
	p := &page{t, svg, draw.New(svg)}
	p.canvas.FillText(style(t.text, titleSize, font.WeightBold), vg.Point{X: margin, Y: height - 18}, title)
	p.canvas.FillText(style(t.muted, textSize, font.WeightNormal), vg.Point{X: margin, Y: height - 39}, subtitle)
	return p
}

// axis gives an axis of plot the look of the page.
func (p *page) axis(a *plot.Axis, label string) {
	a.Width = 0
	a.Tick.Width, a.Tick.Length = 0, 0
	a.Tick.Label.Color = p.muted
	a.Tick.Label.Font = style(nil, smallSize, font.WeightNormal).Font
	a.Label.Text = label
	a.Label.TextStyle.Color = p.muted
	a.Label.TextStyle.Font = style(nil, smallSize, font.WeightNormal).Font
	a.Label.Padding = 6
	a.Padding = 4
}

// bytes is the page as an SVG in pixels. Liberation Sans has the widths of Helvetica
// and Arial, one of which every system has.
func (p *page) bytes() []byte {
	var b bytes.Buffer
	_, _ = p.svg.WriteTo(&b) // a Buffer does not fail
	_, height := p.svg.Size()
	out := b.Bytes()
	out = bytes.Replace(out, fmt.Appendf(nil, `width="%gpt" height="%gpt"`, Width, height), fmt.Appendf(nil, `width="%g" height="%g"`, Width, height), 1)
	return bytes.ReplaceAll(out, []byte("font-family:Liberation Sans;"), []byte("font-family:Helvetica,Arial,'Liberation Sans',sans-serif;"))
}
