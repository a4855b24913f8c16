// Package usherecho puts the middlewares of usher into echo v5.
package usherecho
