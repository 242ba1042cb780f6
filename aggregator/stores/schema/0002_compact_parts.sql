-- What an insert writes is one compact part: a few files, where a wide part has two for each column,
-- and every file is synced to the disk before the insert is done. Merging makes wide parts of them.
ALTER TABLE $events$on_cluster MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE $points$on_cluster MODIFY SETTING min_bytes_for_wide_part = 67108864;

ALTER TABLE $keys$on_cluster MODIFY SETTING min_bytes_for_wide_part = 67108864;
