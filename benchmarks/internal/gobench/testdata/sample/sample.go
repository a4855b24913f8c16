// Package sample has benchmarks for a test.
package sample
