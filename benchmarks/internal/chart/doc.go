// Package chart draws the figures of the report as SVG, each for a light and a dark
// page, by [gonum.org/v1/plot]. The background stays that of the page.
//
// What is ours has the one colour; everything else is grey, so that one looks at a
// chart and not at its legend, of which there is none: bars and lines carry names.
package chart
