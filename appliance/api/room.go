package api

import "encoding/base64"

// RoomForRecords estimates what Response.Reserve and StreamWriter.Lend are to be asked
// for when records are answered in base64: room for one record of the usual size at
// least, and for as many as are wanted. backlog is what there is to read, in records and
// bytes; each and rest are what a record, and the answer, have besides the data.
func RoomForRecords(backlogRecords uint64, backlogBytes int64, maxRecords, maxBytes, each, rest int) (least, want int) {
	if backlogRecords == 0 {
		return rest, rest
	}
	size := int(backlogBytes/int64(backlogRecords)) + 1
	n := min(maxRecords, maxBytes/size+1)
	if backlogRecords < uint64(n) {
		n = int(backlogRecords)
	}
	one := base64.StdEncoding.EncodedLen(size) + each
	return one + rest, one*n + one*n/8 + rest
}
