//! Which tests hold the statements of virtfs-mediator-semantics(7).

/// The tests of each statement.
pub(super) const TESTS: super::Table = &[
    (
        "O1",
        &[
            "owners_and_modes_that_a_guest_gives_are_the_hosts",
            "guest chown/file_to_",
            "guest chown/dir_to_",
            "guest chown/symlink_to_",
            "guest user_create/file_by_",
            "guest user_create/dir_by_",
        ],
    ),
    (
        "O2",
        &[
            "create_gives_owner_and_exact_mode",
            "guest create/file_mode_",
            "guest mkdir/dir_mode_",
            "guest chmod/file_to_",
            "guest chmod/dir_to_",
        ],
    ),
    (
        "O3",
        &[
            "guest chown/clears_",
            "guest chown/same_owner_clears_",
            "guest chown/keeps_",
        ],
    ),
    (
        "O4",
        &[
            "setgid_directory_hands_its_group_down",
            "guest setgid/dir_gives_group_to_file",
            "guest setgid/dir_gives_group_to_dir",
            "guest setgid/dir_gives_group_two_levels",
        ],
    ),
    (
        "O5",
        &[
            "guest user_read/file_mode_",
            "guest user_write/file_mode_",
            "guest user_remove/foreign_in_open_dir",
            "guest sticky/dir_other_removes_foreign",
            "guest mode_0000/cat_as_root",
            "guest mode_0000/put_as_root",
        ],
    ),
    (
        "O6",
        &[
            "view_lets_in_nobody_but_the_client",
            "host_sees_the_export_itself_not_the_view",
            "shared_view_lets_others_in_by_the_modes_of_the_files",
        ],
    ),
    (
        "O7",
        &[
            "newborn_belongs_to_the_requester_or_to_what_guest_root_becomes",
            "creation_that_cannot_be_finished_leaves_nothing",
            "creation_without_a_descriptor_to_spare_leaves_no_file",
        ],
    ),
    ("O8", &["readonly_view_refuses_changes_with_erofs"]),
    (
        "I1",
        &[
            "hard_links_are_one_node_with_all_its_names",
            "guest link/file_write_seen_through_other",
            "guest link/file_chmod_seen_through_other",
            "guest link/file_three_names_unlink_one",
        ],
    ),
    (
        "I2",
        &[
            "guest inode/stable_over_rename",
            "guest inode/different_files",
            "ext4_through_a_view_is_as_ext4",
        ],
    ),
    (
        "I3",
        &[
            "unlinked_open_file_stays_usable",
            "guest remove/unlink_open_then_read",
            "guest remove/unlink_open_then_write",
            "guest remove/unlink_open_then_fstat",
            "guest remove/unlink_open_then_fchmod",
        ],
    ),
    (
        "I4",
        &[
            "inode_number_used_again_is_another_node",
            "name_that_leads_to_another_inode_is_stale",
            "file_that_the_host_replaced_is_stale_and_never_another",
        ],
    ),
    (
        "I5",
        &[
            "files_are_themselves_when_ancestors_are_renamed_and_recorded_links_removed",
            "file_that_the_host_replaced_is_stale_and_never_another",
            "hard_links_agree_at_once_whichever_name_is_changed",
            "twenty_thousand_files_are_walked_and_read_whole",
            "links_are_removed_without_end_though_their_files_stay_known",
            "tree_of_further_links_is_removed_whole",
        ],
    ),
    (
        "N1",
        &[
            "guest create/file_odd_name_",
            "guest create/file_name_length_",
            "guest create/file_name_length_256",
        ],
    ),
    (
        "N2",
        &[
            "symlink_and_readlink_keep_any_bytes",
            "bad_name_is_refused_by_every_operation_that_takes_one",
            "parent_of_the_root_is_the_root",
            "guest symlink/link_dotdot_target",
            "guest try/follow_a_link_out_to_the_canary",
            "guest try/climb_out_with_'..'_to_the_canary",
        ],
    ),
    ("N3", &["guest mkdir/dir_deep_long_names"]),
    (
        "N4",
        &[
            "every_reader_of_a_large_directory_sees_every_entry_once",
            "large_directory_loses_and_doubles_nothing_while_others_come_and_go",
            "listing_has_what_was_there_when_it_began_whoever_else_lists",
            "directory_is_listed_whole_through_small_replies",
            "readdir_resumes_at_any_cookie_and_hides_what_is_above",
            "guest list/seekdir",
        ],
    ),
    (
        "N5",
        &[
            "guest list/while_removing",
            "ext4_through_a_view_is_as_ext4",
        ],
    ),
    (
        "N6",
        &[
            "rmdir_removes_empty_directories_only",
            "guest remove/rmdir_full",
        ],
    ),
    (
        "N7",
        &[
            "rename_moves_replaces_refuses_and_exchanges",
            "guest rename/file_over_file",
            "guest rename/file_over_open_file",
            "guest rename/dir_into_itself",
            "guest rename/dir_into_own_grandchild",
        ],
    ),
    (
        "N8",
        &[
            "rename_moves_replaces_refuses_and_exchanges",
            "rename_flags_outside_the_list_are_refused",
            "ext4_through_a_view_is_as_ext4",
        ],
    ),
    (
        "T1",
        &[
            "times_are_set_to_the_nanosecond_each_by_itself",
            "ext4_through_a_view_is_as_ext4",
            "guest times/fixed",
            "guest times/omit_atime",
            "guest times/omit_mtime",
            "guest times/now",
        ],
    ),
    (
        "T2",
        &[
            "ext4_through_a_view_is_as_ext4",
            "guest times/year_2100",
            "guest times/before_epoch",
        ],
    ),
    (
        "T3",
        &[
            "guest times/dir_moved_by_create",
            "guest times/dir_moved_by_unlink",
            "guest times/dir_moved_by_rename",
            "guest chown/times_kept",
            "change_times_move_with_names_links_owners_and_modes",
            "ext4_through_a_view_is_as_ext4",
            "guest chmod/times_kept",
        ],
    ),
    (
        "T4",
        &[
            "access_times_follow_the_mount_of_the_export",
            "ext4_through_a_view_is_as_ext4",
        ],
    ),
    (
        "W1",
        &[
            "file_created_written_and_read_is_on_the_host",
            "guest write/seen_by_other_open",
        ],
    ),
    (
        "W2",
        &[
            "append_writes_at_the_end_whatever_the_offset",
            "ext4_through_a_view_is_as_ext4",
            "ext4_is_the_same_whichever_way_its_data_goes",
            "guest write/append_two_files",
        ],
    ),
    (
        "W3",
        &[
            "ext4_through_a_view_is_as_ext4",
            "guest size/ftruncate_up_5G",
            "guest size/write_at_maximum",
        ],
    ),
    (
        "W4",
        &[
            "ext4_through_a_view_is_as_ext4",
            "xfs_through_a_view_is_as_xfs",
            "data_operations_do_what_they_say",
        ],
    ),
    (
        "W5",
        &[
            "data_of_a_large_file_goes_past_the_mediator_and_is_the_same_on_both_sides",
            "opens_in_mixed_modes_never_fail_while_policies_and_watchers_come_and_go",
        ],
    ),
    (
        "W6",
        &[
            "guest mmap_cached/shared_write",
            "guest mmap_cached/private_write",
            "guest lock/flock_conflict",
            "guest lock/range_conflict",
        ],
    ),
    (
        "W7",
        &["ext4_through_a_view_is_as_ext4", "guest copy/within_export"],
    ),
    (
        "S1",
        &[
            "set_id_bits_and_file_capabilities_go_with_a_write_on_either_way",
            "removal_of_file_capabilities_is_taken_for_a_write",
            "guest chmod/cleared_by_write_",
            "guest chmod/cleared_by_truncate_",
        ],
    ),
    (
        "S2",
        &["set_id_bits_that_the_policy_strips_never_reach_the_kernel"],
    ),
    (
        "S3",
        &[
            "device_is_never_made",
            "device_that_the_host_made_is_not_opened",
            "guest mknod/char_0_0",
            "guest mknod/char_null",
        ],
    ),
    (
        "S4",
        &[
            "mknod_makes_fifos_sockets_and_files_but_no_devices",
            "fifo_is_made_and_never_opened",
            "fifo_swapped_in_is_never_opened",
            "guest mknod/fifo_mode_",
        ],
    ),
    (
        "X1",
        &[
            "extended_attributes_work_on_files_links_and_unlinked_files",
            "xfs_through_a_view_is_as_xfs",
            "guest xattr/user_set_get",
            "guest xattr/user_value_",
            "guest xattr/user_remove",
        ],
    ),
    (
        "X2",
        &["guest xattr/trusted_set", "guest xattr/security_set"],
    ),
    (
        "X3",
        &[
            "default_acl_is_inherited_as_by_plain_creation",
            "ext4_through_a_view_is_as_ext4",
            "guest acl_posix/file_set_get",
        ],
    ),
    (
        "X4",
        &[
            "acl_decides_for_each_user_as_on_the_export",
            "acl_is_set_inherited_masked_and_copied_as_on_the_export",
            "set_group_id_goes_when_an_outsider_of_the_group_sets_an_acl",
            "acl_changed_on_the_host_is_honoured_within_a_second",
        ],
    ),
    (
        "X5",
        &["ids_of_an_acl_are_mapped_both_ways_and_none_is_lost"],
    ),
    (
        "C1",
        &[
            "change_by_the_host_is_seen_within_a_second_where_the_kernel_remembers",
            "change_by_the_host_is_seen_at_once_where_nothing_is_remembered",
            "change_in_place_that_keeps_the_times_is_not_seen_by_who_has_read_it",
        ],
    ),
    (
        "C2",
        &[
            "symlink_swapped_in_for_a_directory_leads_nowhere",
            "directories_that_the_host_turned_around_never_make_a_loop",
            "parent_that_the_host_moved_outside_is_not_shown",
            "name_that_leads_to_another_inode_is_stale",
        ],
    ),
    (
        "C3",
        &[
            "export_with_another_file_system_inside_is_refused",
            "mount_that_the_host_makes_later_is_not_shown",
        ],
    ),
    ("C4", &["hidden_mounts_are_not_there_nor_what_they_cover"]),
    (
        "C5",
        &[
            "followed_mounts_are_shared_each_as_its_own_file_system",
            "inode_numbers_are_unique_over_followed_mounts_and_the_same_in_listings",
            "directory_bound_to_another_place_of_the_export_is_another_one_there",
            "mediator_has_the_followed_mounts_alone_without_set_id_devices_programs_and_news",
        ],
    ),
    (
        "L1",
        &[
            "thousands_of_files_under_a_small_budget_are_all_served",
            "handles_spend_the_budget_and_never_all_of_it",
            "removed_files_that_are_still_known_leave_room_for_others",
            "removed_file_that_was_open_is_counted_once_and_stays_usable",
            "removed_files_that_are_held_stop_nobody_else",
        ],
    ),
    (
        "L2",
        &[
            "guest link/setuid_of_other",
            "guest link/setgid_exec_of_other",
            "guest link/symlink_itself",
        ],
    ),
    (
        "L3",
        &[
            "room_that_is_told_is_what_the_limit_leaves",
            "ext4_through_a_view_is_as_ext4",
            "guest statfs/type",
        ],
    ),
    ("L4", &["killed_mediator_ends_all"]),
    (
        "L5",
        &[
            "full_file_system_is_told_as_it_is",
            "quota_is_told_as_it_is",
            "limit_of_a_clients_file_size_is_its_own",
            "failed_write_to_the_disk_is_told_by_fsync",
            "failed_read_of_the_disk_is_told",
            "read_that_fails_in_the_middle_of_a_file_is_no_end_of_it",
        ],
    ),
    ("L6", &["what_no_view_does_is_told"]),
    ("L7", &["sync_of_a_view_asks_nothing_of_the_host"]),
    (
        "E1",
        &[
            "ext4_through_a_view_is_as_ext4",
            "xfs_through_a_view_is_as_xfs",
            "btrfs_through_a_view_is_as_btrfs",
            "tmpfs_through_a_view_is_as_tmpfs",
            "overlayfs_through_a_view_is_as_overlayfs",
            "ext4_without_types_in_its_directories_is_as_that",
        ],
    ),
    (
        "E2",
        &["file_of_a_lower_layer_is_changed_through_a_view_as_on_the_host"],
    ),
    (
        "E3",
        &["squashfs_through_a_view_is_read_whole_and_never_changed"],
    ),
    ("E4", &["subvolume_of_btrfs_in_an_export_is_part_of_it"]),
];
