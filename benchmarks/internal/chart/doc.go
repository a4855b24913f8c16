// Package chart draws the figures of the report as SVG, each for a light and a dark
// page, by [gonum.org/v1/plot]. The background stays that of the page.
//
// The values of usher are coloured and all others grey. Bars and lines carry their
// names, so there is no legend.
package chart
