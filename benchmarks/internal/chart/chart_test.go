package chart_test

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/plot/plotter"

	"github.com/usher-go/usher/benchmarks/internal/chart"
)

func TestFormats(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{chart.Seconds(0), "0 ns"},
		{chart.Seconds(5.04e-9), "5.04 ns"},
		{chart.Seconds(310e-9), "310 ns"},
		{chart.Seconds(999.6e-9), "1 µs"},
		{chart.Seconds(1.0423e-6), "1.04 µs"},
		{chart.Seconds(-12.3e-9), "-12.3 ns"},
		{chart.Seconds(0.25), "250 ms"},
		{chart.Bytes(65536), "65.5 kB"},
		{chart.Size(100), "100 B"},
		{chart.Size(16384), "16 KiB"},
		{chart.Size(1 << 20), "1 MiB"},
		{chart.Count(1e6), "1 M"},
		{chart.Count(12345), "12.3 k"},
		{chart.Count(7), "7"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

var bars = chart.Bars{Title: "Title & more", Format: chart.Seconds, Groups: []chart.Group{{
	Name: "a group", Bars: []chart.Bar{{Name: "usher", Value: 2e-7, Lo: 1e-7, Hi: 3e-7, Ours: true}, {Name: "rival", Value: 4e-7, Note: "7 allocs"}},
}}}

func curve(name string, ours bool, last float64) chart.Line {
	return chart.Line{Name: name, Ours: ours, Points: plotter.XYs{{X: 100, Y: 1000}, {X: 1e6, Y: last}}}
}

// Four lines end at the same point.
var lines = chart.Lines{XFormat: chart.Count, YFormat: chart.Bytes, Lines: []chart.Line{
	curve("usher", true, 5000), curve("one", false, 5000), curve("two", false, 5000), curve("three", false, 5010),
}}

func TestChartsAreDocumentsInTheColoursOfTheirPage(t *testing.T) {
	logarithmic := bars
	logarithmic.Log = true
	for name, d := range map[string]interface{ SVG(chart.Theme) []byte }{"bars": bars, "dots": logarithmic, "lines": lines} {
		light, dark := string(d.SVG(chart.Light)), string(d.SVG(chart.Dark))
		if light == dark {
			t.Errorf("%s: the same for both pages", name)
		}
		decoder := xml.NewDecoder(strings.NewReader(light))
		for {
			if _, err := decoder.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if !strings.Contains(light, `width="830"`) || !strings.Contains(light, ">usher<") || strings.Contains(light, "NaN") {
			t.Errorf("%s: not as wide as a README, without usher, or with what is no number", name)
		}
		if light != string(d.SVG(chart.Light)) {
			t.Errorf("%s: another time it is another", name)
		}
	}
}

var label = regexp.MustCompile(`<text x="[^"]*" y="([^"]*)"[^>]*>(usher|one|two|three)<`)

func TestNamesOfLinesDoNotOverlap(t *testing.T) {
	found := label.FindAllStringSubmatch(string(lines.SVG(chart.Light)), -1)
	if len(found) != 4 {
		t.Fatalf("%d names, want 4", len(found))
	}
	for i, a := range found {
		for _, b := range found[:i] {
			ya, _ := strconv.ParseFloat(a[1], 64)
			yb, _ := strconv.ParseFloat(b[1], 64)
			if math.Abs(ya-yb) < 12 {
				t.Errorf("%s at %v and %s at %v", a[2], ya, b[2], yb)
			}
		}
	}
}
